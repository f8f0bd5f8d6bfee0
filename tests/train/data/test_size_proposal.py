"""Which image size is proposed, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from model_repository.image_size import NATIVE
from tests.train.data.test_shapes import category
from train.data.defect_sizes import DefectSize, defect_sizes, warn_of_small_defects
from train.data.shapes import ImageShape
from train.data.size_proposal import Limits, Proposal, propose_size, sizes_of_shape

CAMERA = ImageShape(Path("a.png"), 2448, 2048)
NONE = Limits()
STRIP = ImageShape(Path("b.png"), 4096, 512)


def defect(side: float, shape: ImageShape = CAMERA) -> DefectSize:
    return DefectSize(Path("dent/7_mask.png"), side, shape.height, shape.width)


def propose(
    *defects: DefectSize,
    shape: ImageShape = CAMERA,
    limits: Limits = NONE,
    keep_aspect: bool = False,
    may_keep_own: bool = False,
) -> Proposal:
    return propose_size(
        [shape] * 3,
        defects,
        usual=128,
        keep_aspect=keep_aspect,
        limits=limits,
        may_keep_own=may_keep_own,
    )


def test_without_masks_and_a_time_it_is_the_preset_s_in_the_pictures_shape() -> None:
    proposal = propose()
    assert proposal.size == (128, 160)
    assert proposal.reasons == (
        "pictures are 2448 x 2048 pixels, wide and high",
        "it has about as many as the preset's 128, for no mask says how small defects are",
    )
    assert propose(shape=STRIP).size == (64, 480)


def test_with_masks_the_smallest_defect_has_eight_pixels() -> None:
    proposal = propose(defect(100), defect(40))
    height, width = proposal.size  # type: ignore[misc]
    assert 40 * (height * width / (2448 * 2048)) ** 0.5 >= 8
    smaller = sizes_of_shape(CAMERA)[sizes_of_shape(CAMERA).index(proposal.size) - 1]
    assert 40 * (smaller[0] * smaller[1] / (2448 * 2048)) ** 0.5 < 8  # type: ignore[index]
    assert proposal.warnings == ()
    assert "the smallest defect, in dent/7_mask.png, is 40.0 pixels wide and 8." in proposal.reasons[-1]
    assert "two positions of stage 1, which has one every 4" in proposal.reasons[-1]


def test_large_defects_make_it_no_smaller_than_usual() -> None:
    assert propose(defect(1500)).size == propose().size


def test_a_time_bounds_it_and_what_that_costs_is_told() -> None:
    limits = Limits(ms_per_image=20, ms_per_megapixel=200)  # 100,000 pixels
    free, bounded = propose(limits=limits), propose(defect(12), limits=limits)
    assert free.size == bounded.size == (256, 320)
    assert "an image takes 16.4 of 20 ms, by 200 ms a megapixel in PyTorch" in free.reasons[-1]
    wanted, small, native = bounded.warnings
    assert wanted.endswith("ms of 20")
    assert "dent/7_mask.png is 12.0 pixels wide and only 1.5 at 256x320" in small
    assert native == "--image-size native keeps all 12.0 pixels of it, and takes longer"


def test_statistics_bound_it_too() -> None:
    proposal = propose(defect(12), limits=Limits(n_pixels=524_000))
    assert proposal.size == (640, 768)
    assert (
        "has more than the 524,000 pixels that the distance mahalanobis has room for" in proposal.warnings[0]
    )


def test_pictures_keep_their_size_where_no_other_keeps_a_defect_and_the_time_suffices() -> None:
    within = Limits(n_pixels=524_000, ms_per_image=1100, ms_per_megapixel=200)
    proposal = propose(defect(12), limits=within, may_keep_own=True)
    assert proposal.size == NATIVE
    assert proposal.warnings == ()
    assert proposal.reasons[1:] == (
        "the smallest defect, in dent/7_mask.png, is 12.0 pixels wide, of which 640x768 would leave 3.8",
        "a picture takes 1.01e+03 of 1100 ms at its own size, by 200 ms a megapixel in PyTorch on this machine",
    )
    told = "--image-size native keeps all 12.0 pixels of it, and takes longer"
    for limits, may in (
        (replace(within, ms_per_image=900), True),
        (replace(within, ms_per_image=None), True),
        (within, False),
    ):
        proposal = propose(defect(12), limits=limits, may_keep_own=may)
        assert proposal.size == (640, 768)
        assert proposal.warnings[-1] == told
    assert propose(defect(40), limits=within, may_keep_own=True).size != NATIVE  # it has its eight pixels
    small = ImageShape(Path("e.png"), 640, 512)
    proposal = propose(defect(5, small), shape=small, limits=within, may_keep_own=True)
    assert proposal.size == (512, 640)  # that is their own
    assert told[:20] not in " ".join(proposal.warnings)


def test_no_time_is_enough_for_the_smallest() -> None:
    proposal = propose(limits=Limits(ms_per_image=0.1, ms_per_megapixel=200))
    assert proposal.size == 32
    assert proposal.warnings == (
        "even the smallest size, 32, takes 0.205 ms of 0.1; allow more time, or take smaller networks",
    )


def test_a_shape_that_is_kept_is_scaled_by_its_longer_side() -> None:
    tall = defect(64, ImageShape(Path("c.png"), 256, 1024))
    assert tall.resized((256, 256), keep_aspect=True) == 16
    assert tall.resized((256, 256), keep_aspect=False) == 32


def test_sizes_go_up_to_the_picture_s_own() -> None:
    sizes = sizes_of_shape(STRIP)
    assert (sizes[0], sizes[-1]) == (32, (256, 2048))
    assert sizes_of_shape(ImageShape(Path("d.png"), 100, 100))[-1] == 128


def test_a_size_below_a_defect_s_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = category(tmp_path, (80, 40))  # its mask marks 40 x 20 pixels: 28.3 squared
    (size,) = defect_sizes(data.test)
    assert (round(size.side, 1), size.height, size.width) == (28.3, 40, 80)
    warn_of_small_defects(data.test, 32, keep_aspect=False)
    assert capsys.readouterr().err == ""
    tiny = category(tmp_path / "tiny", (1000, 1000))
    path = tmp_path / "tiny" / "ground_truth" / "dent" / "a_mask.png"
    mask = Image.new("L", (1000, 1000))
    mask.paste(255, (10, 10, 34, 34))
    mask.putpixel((500, 500), 255)  # a speck does not count beside it
    mask.save(path)
    warn_of_small_defects(tiny.test, 128, keep_aspect=False)
    told = " ".join(capsys.readouterr().err.split())
    assert "a_mask.png is 24.0 pixels wide, and 3.1 at image size 128" in told
    assert "take a larger --image-size, or --image-size auto" in told

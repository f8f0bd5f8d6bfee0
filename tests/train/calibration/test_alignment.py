"""What pictures are aligned to, and whether it helps: on good images alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model_repository.alignment.picture_alignment import Aligner, AlignmentError, gray_of, turn_of
from tests.conftest import CATEGORY, FitTiny
from tests.model_repository.drawn_parts import drawn, laid
from tests.moved_parts import move_category
from tests.train.calibration.test_thresholds import with_other_test_set
from train.calibration.alignment import align_good_images, fit_reference, reference_pixels
from train.calibration.recalibration import read_good_images
from train.checkpoint.header import read_header, read_release_id
from train.checkpoint.tensors import load_checkpoint
from train.config import fit_config
from train.data.category import CategoryData, read_category
from train.data.known_defects import read_known_defects
from train.data.pictures.loaded import LoadedImages
from train.data.pictures.loading import load_images
from train.errors import DataError, RunError
from train.fitting.known_defects import read_defects
from train.method.student import load_teacher
from train.support.devices import Runtime

SIDE = 96
Images = NDArray[np.uint8]


def parts(count: int, *, turn: float, shift: float, seed: int = 0) -> Images:
    """The drawn part, laid anyhow."""
    generator = np.random.default_rng(seed)
    poses = zip(
        generator.uniform(-turn, turn, count), *generator.uniform(-shift, shift, (2, count)), strict=True
    )
    noise = generator.normal(scale=3, size=(count, SIDE, SIDE, 3))
    pictures = np.stack([laid(drawn(), *pose)[0] for pose in poses])
    return np.asarray((pictures + noise).clip(0, 255).astype(np.uint8))


def chosen(
    images: Images, capsys: pytest.CaptureFixture[str], align: str, boxes: NDArray[np.int32] | None = None
) -> tuple[bool, str]:
    # With the preset's own teacher: what patches do to features of random weights says little.
    config = fit_config("edge", {"image_size": SIDE, "align": align, "holdout_ratio": 0.3})
    teacher = load_teacher(config, weights_dir=None)[0]
    loaded = LoadedImages(images, tuple(range(len(images))), (), boxes=boxes)
    paths = [Path(f"{index}.png") for index in range(len(images))]
    _, reference = align_good_images(loaded, paths, teacher, config=config, runtime=Runtime("cpu"))
    return reference is not None, " ".join(capsys.readouterr().err.split())


def test_the_reference_lies_in_the_middle_of_how_parts_lie() -> None:
    images = parts(15, turn=25, shift=10)
    reference = fit_reference(images[:10], images[10:], seed=0)
    motion = Aligner(reference).nearest(drawn()).motion
    shift, turn = turn_of(motion, (SIDE, SIDE))
    assert shift < 8
    assert abs(turn) < 12
    aligner = Aligner(reference)
    for image in images[10:]:
        aligner.align(image)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    with pytest.raises(AlignmentError):
        aligner.align(noise)


def test_a_few_other_pictures_do_not_blur_the_reference() -> None:
    images = parts(10, turn=20, shift=8)
    others = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    aligned = Aligner(fit_reference(images, images, seed=0))
    spoilt = reference_pixels(np.concatenate([images, others]))
    sharp = np.abs(np.diff(gray_of(drawn()).astype(float))).max()
    assert np.abs(np.diff(spoilt.astype(float))).max() > 0.7 * sharp
    assert aligned.reference.least_correlation > 0.5


@pytest.mark.parametrize(("turn", "shift", "helps"), [(25.0, 10.0, True), (0.0, 0.0, False)])
def test_auto_aligns_where_patches_stand_out_more_then(
    capsys: pytest.CaptureFixture[str], turn: float, shift: float, helps: bool
) -> None:
    aligned, told = chosen(parts(36, turn=turn, shift=shift), capsys, "auto")
    assert aligned == helps
    assert (
        f"Alignment {'on' if helps else 'off'}: images with a pasted patch stand out from held-out good"
        in told
    )
    assert ("Aligned 36 good images to a reference picture: shifts of up to" in told) == helps


def test_streaks_beside_parts_that_their_pictures_cut_off_decide_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = parts(36, turn=10, shift=26)

    def stands_out() -> float:
        _, told = chosen(images, capsys, "auto")
        return float(re.findall(r"by ([\d.]+) standard deviations aligned", told)[0])

    hidden = stands_out()
    monkeypatch.setattr("train.calibration.alignment.shown_of", lambda boxes, shape, motions=None: None)
    assert stands_out() < 0.9 * hidden


def test_what_is_filled_up_beside_pictures_decides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    images = parts(36, turn=0, shift=0)
    generator = np.random.default_rng(1)
    for image in images[::7]:
        image[72:] = generator.integers(0, 256, (24, SIDE, 3))
    boxes = np.tile(np.array([0, 0, 64, SIDE], np.int32), (len(images), 1))
    figures = {}
    for name, lie in (("counted", None), ("hidden", boxes)):
        _, told = chosen(images, capsys, "auto", lie)
        figures[name] = re.findall(r"by ([\d.]+) standard deviations aligned, ([\d.]+) as they lie", told)[0]
    for counted, hidden in zip(figures["counted"], figures["hidden"], strict=True):
        assert float(hidden) > 1.2 * float(counted), figures


def test_auto_leaves_too_few_images_as_they_lie(capsys: pytest.CaptureFixture[str]) -> None:
    aligned, told = chosen(parts(6, turn=20, shift=8), capsys, "auto")
    assert not aligned
    assert (
        "Alignment off: 6 good images are too few to see whether it helps; --align on aligns all the same."
        in told
    )


def strange_data(data: CategoryData, root: Path) -> CategoryData:
    """The category with noise in place of one of its good images."""
    poisoned = with_other_test_set(data, root, "none")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(poisoned.train_good[3])
    return read_category(root, dataset="folder", category=CATEGORY)


def test_a_good_image_that_cannot_be_aligned_is_named_and_left_out(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = strange_data(tiny_data, tmp_path / CATEGORY)
    path = fit_tiny(data, tmp_path / "run", align="on")
    told = "".join(capsys.readouterr().err.split())  # however the console wraps it
    for sentence in (
        f"Skipped: {data.train_good[3]} cannot be aligned: its correlation with the reference picture is",
        "1 of 16 good images cannot be aligned; the server refuses a part that lies so",
    ):
        assert sentence.replace(" ", "") in told
    checkpoint = load_checkpoint(path)
    history = checkpoint.provenance
    assert (history.n_train + history.n_held_out, history.n_broken, history.aligned) == (15, 1, True)
    good = read_good_images(checkpoint, data, runtime=Runtime("cpu"), what="this")
    assert (len(good.pixels), len(good.held_out)) == (15, history.n_held_out)
    with pytest.raises(DataError, match=r"cannot be aligned: .*; or leave out --strict to skip it\."):
        load_images(data.train_good, image_size=64, strict=True, reference=checkpoint.reference)


def test_alignment_is_in_the_weights_id_and_the_test_set_has_no_say(
    tiny_data: CategoryData, tiny_checkpoint: Path, fit_tiny: FitTiny, tmp_path: Path
) -> None:
    aligned = fit_tiny(tiny_data, tmp_path / "aligned", align="on")
    poisoned = with_other_test_set(tiny_data, tmp_path / CATEGORY, "defective training images")
    other = fit_tiny(poisoned, tmp_path / "poisoned", align="on")
    assert read_release_id(aligned) == read_release_id(other) != read_release_id(tiny_checkpoint)
    assert read_header(aligned).provenance.aligned
    plain = read_header(tiny_checkpoint)
    assert "align" not in plain.config.model_dump()
    assert "aligned" not in plain.provenance.model_dump()


def test_without_opencv_it_is_said_at_once(
    tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.support.libraries.importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="which is not installed; install it with the extra `align`"):
        fit_tiny(tiny_data, tmp_path / "run", align="on")


def test_masks_of_known_defects_go_with_their_aligned_images(tiny_data: CategoryData, tmp_path: Path) -> None:
    moved = move_category(tiny_data, tmp_path / CATEGORY)
    good = load_images(tiny_data.train_good, image_size=64, strict=True).pixels
    reference = fit_reference(good, good[:8], seed=0)
    shutil.rmtree(moved.root / "test" / "good")
    known = read_known_defects(moved.root)
    config = fit_config("edge", {"image_size": 64})
    asked = {"config": config, "bit_depth": 8, "keep_aspect": False, "category": CATEGORY, "strict": True}
    lying, aligned = (read_defects(known, [], **asked, reference=one) for one in (None, reference))
    assert lying.masks is not None
    assert aligned.masks is not None
    as_drawn = {
        path.parent.name: np.asarray(Image.open(path).resize((64, 64))) > 0
        for path in (tiny_data.root / "ground_truth").rglob("*.png")
    }
    for index, image in enumerate(aligned.images):
        overlap = [
            (mask[index] & as_drawn[image.defect]).sum() / (mask[index] | as_drawn[image.defect]).sum()
            for mask in (lying.masks, aligned.masks)
        ]
        assert overlap[1] > max(0.4, overlap[0])  # of a few pixels, moved there and back

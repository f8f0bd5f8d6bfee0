"""What is white in a data set of more than 8 bits: found, told, overridden, and stored with the checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CATEGORY, FitTiny
from train.checkpoint.header import read_header
from train.config import fit_config
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData, read_category
from train.data.pictures.loading import load_images
from train.errors import ConfigError, DataError
from train.evaluation.evaluate import evaluate
from train.support.devices import Runtime


def write(path: Path, *values: float, kind: Any = np.uint16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), values[0], kind)).save(path)
    return path


def read(root: Path) -> CategoryData:
    return read_category(root, dataset="folder", category=CATEGORY)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("brightest", "bit_depth"),
    [(200, 8), (256, 10), (1023, 10), (1934, 12), (4095, 12), (4096, 14), (16_384, 16), (65_535, 16)],
)
def test_the_brightest_training_image_decides(
    brightest: int, bit_depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train/good/000.tif", 100)
    write(tmp_path / "train/good/001.tif", brightest)
    assert find_bit_depth(read(tmp_path)) == bit_depth
    assert (
        f"Images of 'pill' hold values up to {brightest:,}: white is {2**bit_depth - 1:,}, bit depth {bit_depth}, "
        "found from the brightest training image; --bit-depth overrides."
    ) in printed(capsys)


@pytest.mark.parametrize(
    ("brightest", "kind", "bit_depth"),
    [(0.8, np.float32, 1), (200.0, np.float32, 8), (3000.0, np.float32, 12), (100_000, np.int32, 20)],
)
def test_floating_point_and_32_bits(brightest: float, kind: Any, bit_depth: int, tmp_path: Path) -> None:
    write(tmp_path / "train/good/000.tif", brightest, kind=kind)
    assert find_bit_depth(read(tmp_path)) == bit_depth


def test_8_bit_images_say_nothing(tiny_data: CategoryData, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_bit_depth(tiny_data) == 8
    assert printed(capsys) == ""
    assert find_bit_depth(tiny_data, asked=12) == 12  # deeper ones may come later
    assert "--bit-depth 12 changes nothing here: no training image" in printed(capsys)


def test_it_is_overridden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train/good/000.tif", 1900)
    assert find_bit_depth(read(tmp_path), asked=14) == 14
    assert "white is 16,383, bit depth 14, as asked for" in printed(capsys)
    with pytest.raises(
        DataError, match=r"000\.tif has values up to 1,900; expected at most 255, .*give --bit-depth 12"
    ):
        find_bit_depth(read(tmp_path), asked=8)


@pytest.mark.parametrize(
    ("brightest", "kind", "asked"), [(1900, np.uint16, 16), (1.2, np.float32, None), (20, np.uint16, None)]
)
def test_nearly_black_images_are_told(
    brightest: float, kind: Any, asked: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train/good/000.tif", brightest, kind=kind)
    find_bit_depth(read(tmp_path), asked=asked)
    assert f"reaches {brightest:,g} of" in printed(capsys)


@pytest.mark.parametrize("bit_depth", [0, 2, 7, 33])
def test_no_camera_has_such_a_bit_depth(bit_depth: int) -> None:
    with pytest.raises(ConfigError, match="bit_depth"):
        fit_config("edge", {"bit_depth": bit_depth})


def test_a_brighter_test_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train/good/000.tif", 1900)
    write(tmp_path / "test/stain/000.tif", 9000)
    with pytest.raises(
        DataError,
        match=r"test/stain/000\.tif has values up to 9,000; expected at most 4,095, .*--bit-depth 14",
    ):
        find_bit_depth(read(tmp_path))


def test_deep_test_images_of_an_8_bit_category_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train/good/000.tif", 190, kind=np.uint8)
    write(tmp_path / "test/stain/000.tif", 1900)
    with pytest.raises(
        DataError, match=r"expected at most 255, .*no training image has more\); give --bit-depth"
    ):
        find_bit_depth(read(tmp_path))


def test_no_bit_depth_is_advised_for_fractions_and_integers(tmp_path: Path) -> None:
    write(tmp_path / "train/good/000.tif", 0.5, kind=np.float32)
    write(tmp_path / "test/stain/000.tif", 1900)
    with pytest.raises(
        DataError, match=r"expected at most 1, the white of bit depth 1 .*\); save them all alike"
    ):
        find_bit_depth(read(tmp_path))


def test_a_mixture_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train/good/000.tif", 1900)
    write(tmp_path / "train/good/001.png", 100, kind=np.uint8)
    assert find_bit_depth(read(tmp_path)) == 12
    assert "Warning: 1 of 2 training images of 'pill' have 8 bits a channel, 001.png among" in printed(capsys)
    write(tmp_path / "test/stain/000.png", 100, kind=np.uint8)
    find_bit_depth(read(tmp_path))
    assert "Warning: 1 of 1 test images of 'pill' have 8 bits a channel, 000.png among them" in printed(
        capsys
    )


def test_broken_files_are_left_to_the_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train/good/000.tif", 1900)
    broken = write(tmp_path / "train/good/001.tif", 60_000)
    broken.write_bytes(broken.read_bytes()[:-30])
    write(tmp_path / "train/good/002.tif", -5, kind=np.int32)
    data = read(tmp_path)
    assert find_bit_depth(data) == 12
    assert "have 8 bits" not in printed(capsys)
    loaded = load_images(data.train_good, image_size=8, strict=False, bit_depth=12)
    assert loaded.readable == (0,)
    assert loaded.pixels[0, 0, 0].tolist() == [118] * 3  # 1900 * 255 / 4095


@pytest.fixture(scope="module")
def deep_data(tiny_data: CategoryData, tmp_path_factory: pytest.TempPathFactory) -> CategoryData:
    """The tiny category's grey values as 12 bits in 16-bit files."""
    root = tmp_path_factory.mktemp("deep") / CATEGORY
    shutil.copytree(tiny_data.root, root)
    for path in (*root.glob("train/good/*.png"), *root.glob("test/*/*.png")):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16 + grey // 16).save(path)
    return read(root)


def test_a_checkpoint_stores_it_and_evaluation_follows(
    deep_data: CategoryData,
    tiny_data: CategoryData,
    fit_tiny: FitTiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from train.checkpoint.tensors import load_checkpoint

    path = fit_tiny(deep_data, tmp_path)
    assert read_header(path).provenance.bit_depth == 12
    assert read_header(path).config.bit_depth is None  # what was asked for
    evaluation = evaluate(load_checkpoint(path), deep_data, runtime=Runtime("cpu"))
    assert evaluation is not None
    assert evaluation.pixels.max() > 200  # not 16, as with 16 bits
    assert evaluation.metrics["n_broken"] == 0
    assert "have 8 bits" not in printed(capsys)
    evaluate(load_checkpoint(path), tiny_data, runtime=Runtime("cpu"))
    assert f"{len(tiny_data.test)} of {len(tiny_data.test)} test images of 'pill' have 8 bits" in printed(
        capsys
    )


def test_a_checkpoint_of_8_bits_refuses_deeper_images(tiny_checkpoint: Path, deep_data: CategoryData) -> None:
    from train.checkpoint.tensors import load_checkpoint

    checkpoint = load_checkpoint(tiny_checkpoint)
    assert checkpoint.provenance.bit_depth == 8
    with pytest.raises(DataError, match=r"None of the 11 test images can be read; .*expected at most 255"):
        evaluate(checkpoint, deep_data, runtime=Runtime("cpu"))

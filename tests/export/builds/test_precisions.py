"""Builds in half precision and int8: made once, recorded, and not left behind when they judge otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.agreement import LIMITS
from export.builds import precisions
from export.errors import ExportError, VerificationError
from export.graphs.int8 import quantize
from export.manifest import GraphFiles, read_manifest
from tests.conftest import CATEGORY
from tests.export.three_precisions import build
from train.data.category import CategoryData
from train.support.files import sha256_of


def test_manifest_tells_precision_agreement_and_what_stayed_in_float(built: Path) -> None:
    whole, half, int8 = (read_manifest(built / folder) for folder in (".", "fp16", "int8"))
    assert [manifest.precision for manifest in (whole, half, int8)] == ["fp32", "fp16", "int8"]
    assert len({manifest.release_id for manifest in (whole, half, int8)}) == 1
    assert len({manifest.teacher_id for manifest in (whole, half, int8)}) == 3
    assert [agreement.judge for agreement in half.agreements] == ["ONNX fp16"]
    assert half.agreements[0].n_images == 11
    assert 0 < half.agreements[0].max_map_difference < int8.agreements[0].max_map_difference
    assert sha256_of(built / "fp16/student.onnx") == half.files["student.onnx"].sha256


def test_nothing_is_done_twice(product: Path) -> None:
    assert not build(product, "fp16").built
    assert not build(product, "int8").built


def test_a_build_is_judged_again_with_other_test_images(
    product: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    """As after a test set was added, which the gate asks for where it had none."""
    images = Path(shutil.copytree(tiny_data.root, tmp_path / CATEGORY))
    work = Path(shutil.copytree(product, tmp_path / "product"))
    assert not build(work, "fp16", images=images).built  # the same images elsewhere
    float32 = read_manifest(work / "build" / CATEGORY)
    next((images / "test" / "good").iterdir()).unlink()
    result = build(work, "fp16", images=images)
    assert (result.built, result.manifest.agreements[0].n_images) == (True, 10)
    assert not build(work, "fp16", images=images).built
    assert read_manifest(work / "build" / CATEGORY) == float32  # and what hangs on it stays


def test_without_the_images_a_build_stays(product: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(product, tmp_path / "product"))
    assert not build(work, "fp16", images=None).built
    with pytest.raises(ExportError, match=r"nowhere holds no images"):
        build(work, "fp16", images=tmp_path / "nowhere")


def test_beyond_a_limit_nothing_is_written_but_the_flipped_images(
    product: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 calibrated on noise: its ranges have nothing to do with the product's images."""
    work = Path(shutil.copytree(product, tmp_path / "product"))
    shutil.rmtree(work / "build" / CATEGORY / "int8")

    def on_noise(source: GraphFiles, images: NDArray[np.uint8], calibration: object) -> object:
        noise = np.full_like(images, 127) + np.random.default_rng(0).integers(0, 2, images.shape, np.uint8)
        return quantize(source, noise, calibration, max_change=1e9)  # type: ignore[arg-type]

    monkeypatch.setattr(precisions, "quantize", on_noise)
    with pytest.raises(
        VerificationError, match=r"ONNX int8 does not judge as the checkpoint does: .* allowed"
    ):
        build(work, "int8", limits=LIMITS["int8"])
    left = {path.name for path in (work / "build" / CATEGORY).iterdir()}
    assert "int8" not in left
    assert left <= {*(path.name for path in built.iterdir()), "rejected-int8"} - {"int8"} | {"rejected-int8"}

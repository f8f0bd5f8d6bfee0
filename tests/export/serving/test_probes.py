"""Images that a release is asked about before it becomes live."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from export.manifest import read_manifest
from export.product import ProductPaths
from export.serving.probes import PROBES, make_probes
from model_repository.distance_fusion.map_fusion import Calibration
from train.config import DrawnRegions
from train.data.regions import map_regions

pytest_plugins = ["tests.tiny_native"]


def test_regions_of_pictures_at_their_own_size_are_probed_at_the_size_they_are_drawn_on(
    tmp_path: Path, native_product: ProductPaths
) -> None:
    """The fusion refuses another, so that such a release could not be published."""
    build = shutil.copytree(native_product.build, tmp_path / "build")
    manifest = read_manifest(build)
    drawn = DrawnRegions(picture=(210, 150), ignore=(((0.0, 0.0), (50.0, 0.0), (50.0, 150.0), (0.0, 150.0)),))
    config = manifest.config.model_copy(update={"regions": drawn})
    calibration = Calibration.load(build / "calibration.json")
    calibration = replace(calibration, regions=map_regions(config, keep_aspect=False))
    (build / "calibration.json").write_text(calibration.to_json(), encoding="utf-8")
    probes = make_probes(build, manifest.model_copy(update={"config": config}))
    assert [Image.open(io.BytesIO(png)).size for png, _ in probes] == [(210, 150)] * PROBES
    assert all(score > 0 for _, score in probes)
    usual = make_probes(native_product.build, manifest)
    assert [Image.open(io.BytesIO(png)).size for png, _ in usual] == [(96, 96)] * PROBES
    assert probes[0][1] != pytest.approx(usual[0][1], rel=1e-6)

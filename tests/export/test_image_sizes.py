"""A square is written as it always was, to the last bit; another rectangle comes back from every file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from export.builds.build import teacher_id
from export.manifest import read_manifest
from export.releases.bundles.contents import models_of
from export.serving import steps
from model_repository.distance_fusion.map_fusion import Calibration, release_id_of
from tests.conftest import CATEGORY
from train.checkpoint.header import weights_id_of
from train.checkpoint.provenance import Provenance
from train.config import FitConfig, fit_config

CALIBRATION = Calibration(
    release_id=0,
    category="pill",
    image_size=128,
    smoothing_sigma=2.0,
    pool_size=5,
    stage_weights=(1.0, 0.5, 1.5),
    image_threshold=3.5,
    pixel_threshold=2.5,
    score_share=0.01,
    weights_id=4711,
)
STRIP = (64, 96)


def test_ids_of_squares_are_those_of_before_there_were_other_rectangles() -> None:
    arrays = {
        "student.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "calibration.image_threshold": np.array(1.0),
    }
    ids = [weights_id_of(arrays, fit_config(preset, {}), "pill") for preset in ("edge", "paper")]
    assert ids == [4901413787280974684, 5613629203486990961]
    assert release_id_of(CALIBRATION, "code") == 8707981543547363807
    assert teacher_id({"w": torch.arange(4.0)}, 128) == 717075543222322058


def test_the_header_of_a_square_is_that_of_before(tiny_checkpoint: Path) -> None:
    written = fit_config("edge", {"common_factors": 0}).model_dump_json().encode()
    assert hashlib.sha256(written).hexdigest() == (
        "89e0c007f8c7710fadb1658ec7f19df4fed6e806466959306f0050e09e259ad9"
    )
    with safe_open(tiny_checkpoint, framework="np") as file:
        metadata = file.metadata()
    assert '"aspect"' not in metadata["config"] + metadata["provenance"]
    assert Provenance.model_validate_json(metadata["provenance"]).keep_aspect is False


def test_a_rectangle_comes_back_from_what_is_written() -> None:
    config = fit_config("edge", {"image_size": "64x96", "aspect": "keep"})
    assert config.image_size == STRIP
    assert FitConfig.model_validate_json(config.model_dump_json()) == config
    calibration = replace(CALIBRATION, image_size=STRIP)
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert calibration.fusion.shape == STRIP
    assert release_id_of(calibration, "code") != release_id_of(CALIBRATION, "code")


@pytest.mark.parametrize(
    "size", [0, 2049, (64,), (64, 0), (64, 2049), (64, 96, 3), (64, True), "64x96", 64.0]
)
def test_a_calibration_of_an_impossible_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"image_size .*, expected 1 to 2048"):
        replace(CALIBRATION, image_size=size)  # type: ignore[arg-type]


def test_models_are_named_after_height_and_width(tiny_build: Path) -> None:
    assert steps.teacher_name("lite", 128) == "teacher_lite_128"
    assert steps.teacher_name("lite", STRIP, precision="fp16") == "teacher_lite_64x96_fp16"
    assert steps.decoder_name(128, 12) == "image_decoder_128_12bit"
    assert steps.decoder_name(STRIP, keep_aspect=True) == "image_decoder_64x96_kept"
    assert steps.foreground_name("threshold", STRIP) == "foreground_64x96"
    manifest = read_manifest(tiny_build / CATEGORY)
    for student in ("pill_student_64x96", "pill_student_64x96_2", "pill_student_128_2"):
        assert models_of(manifest, student)["student"] == student
    assert models_of(manifest, "pill_student_x")["student"] == "pill_student"


def test_the_decoder_s_configuration_says_that_shapes_are_kept() -> None:
    config = steps.image_decoder_config(STRIP, keep_aspect=True)
    assert list(config.output[0].dims) == [64, 96, 3]
    assert config.parameters["aspect"].string_value == "keep"
    assert "aspect" not in steps.image_decoder_config(128).parameters

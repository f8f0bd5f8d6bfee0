"""Judges beside PyTorch: what differs is counted and drawn, another release is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.agreement import LIMITS
from export.errors import ExportError
from export.manifest import GraphFiles
from export.parity.judges import Answers, GraphJudge, JudgedTestSet
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData
from train.errors import StorageError


def test_flipped_images_are_written_with_both_maps(
    built_checkpoint: Checkpoint, tiny_data: CategoryData, tmp_path: Path
) -> None:
    judged = JudgedTestSet.of(built_checkpoint, tiny_data, weights_dir=None)
    labels = judged.verdict(judged.maps).pred_label[:, 0]
    labels[0] = ~labels[0]
    answers = Answers("a judge", "fp32", {}, judged.maps, labels)
    agreement = judged.compare(answers, LIMITS["fp32"])
    assert agreement.flips == 1
    assert agreement.max_map_difference == 0
    assert not agreement.accepted
    (picture,) = judged.write_flipped(answers, tmp_path / "flipped")
    with Image.open(picture) as opened:
        assert opened.size == (768, 256)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/flipped/.*\.png cannot be written \(.+\); make room"):
        judged.write_flipped(answers, tmp_path / "file" / "flipped")


def test_onnx_judge_refuses_graphs_of_another_release(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    other = replace(built_checkpoint.calibration, release_id=1)
    with pytest.raises(ExportError, match=r"answers for release .*; expected 1"):
        GraphJudge.of_onnx("fp32", GraphFiles.in_folder(built), other).maps(images)


def test_without_a_test_set_the_agreement_says_what_was_judged(
    built_checkpoint: Checkpoint, tiny_data: CategoryData
) -> None:
    """The images that the networks were trained on, for int8 those that it was calibrated on, show less."""

    def caveat(data: CategoryData, precision: str) -> str | None:
        judged = JudgedTestSet.of(built_checkpoint, data, weights_dir=None)
        answers = Answers(f"ONNX {precision}", precision, {}, judged.maps)
        return judged.compare(answers, LIMITS[precision]).caveat

    assert caveat(tiny_data, "int8") is None
    no_test = replace(tiny_data, test=())
    said = "ONNX int8 was judged on 16 training images, most of which int8 was calibrated on: "
    assert str(caveat(no_test, "int8")).startswith(said)
    assert "on 16 training images: how it judges other images" in str(caveat(no_test, "fp16"))
    others = replace(no_test, train_good=tiny_data.train_good[:3])
    assert "on 3 good images: how it judges other images" in str(caveat(others, "int8"))

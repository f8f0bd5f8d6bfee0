"""Judges beside PyTorch: what differs is counted and drawn, other weights are refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image

from export.agreement import LIMITS, Agreement
from export.builds.precisions import hold_to_gate
from export.errors import ExportError, VerificationError
from export.manifest import GraphFiles
from export.parity.flipped import write_flipped
from export.parity.judges import Answers, GraphJudge, JudgedTestSet
from export.parity.table import agreement_table
from tests.export.three_precisions import LOOSE
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
    (picture,) = write_flipped(judged, answers, tmp_path / "flipped")
    with Image.open(picture) as opened:
        assert opened.size == (768, 256)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/flipped/.*\.png cannot be written \(.+\); make room"):
        write_flipped(judged, answers, tmp_path / "file" / "flipped")


def overflowing(source: Path, folder: Path) -> GraphFiles:
    """Half-precision graphs whose student overflows: the weights of one of its convolutions are as large as can be."""
    files = GraphFiles.in_folder(Path(shutil.copytree(source, folder)))
    model = onnx.load(files.student)
    half = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    weight = next(tensor for tensor in half if len(tensor.dims) == 4)
    largest = np.full(tuple(weight.dims), 60_000, np.float16)
    weight.CopyFrom(numpy_helper.from_array(largest, weight.name))
    onnx.save(model, files.student)
    return files


def test_half_precision_that_overflows_is_refused_and_the_image_named(
    built: Path, built_checkpoint: Checkpoint, tiny_data: CategoryData, tmp_path: Path
) -> None:
    files = overflowing(built / "fp16", tmp_path / "fp16")
    judged = JudgedTestSet.of(built_checkpoint, tiny_data, weights_dir=None)
    maps = GraphJudge.of_onnx("fp16", files, built_checkpoint.calibration).maps(judged.images)
    assert np.isnan(maps).all(axis=(1, 2)).all()
    agreement = judged.compare(Answers("ONNX fp16", "fp16", {}, maps), LOOSE)
    assert not agreement.accepted
    first = tiny_data.test[0].path
    assert agreement.beyond_limits == [
        f"the anomaly maps of 11 of 11 images are not finite, that of {first} first: activations overflow"
    ]
    assert Agreement.model_validate_json(agreement.model_dump_json()) == agreement
    agreement_table("pill", [agreement])  # what is unknown is left blank
    with pytest.raises(VerificationError, match=r"11 of 11 images are not finite.*; nothing was written"):
        hold_to_gate(judged, files, precision="fp16", limits=LOOSE, rejected_dir=tmp_path / "rejected")


def test_one_map_of_many_that_is_not_finite_is_refused_even_where_every_label_agrees(
    built_checkpoint: Checkpoint, tiny_data: CategoryData, tmp_path: Path
) -> None:
    judged = JudgedTestSet.of(built_checkpoint, tiny_data, weights_dir=None)
    maps = judged.maps.copy()
    maps[3, 0, 0] = np.nan
    answers = Answers("a judge", "fp16", {}, maps, judged.verdict(judged.maps).pred_label[:, 0])
    agreement = judged.compare(answers, LOOSE)
    assert (agreement.flips, agreement.image_auroc, agreement.max_map_difference) == (1, None, None)
    assert (
        f"1 of 11 images are not finite, that of {tiny_data.test[3].path} first" in agreement.beyond_limits[0]
    )
    assert write_flipped(judged, answers, tmp_path) == []


def test_a_judge_keeps_the_maps_of_the_images_that_it_can_judge(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    judge = GraphJudge.of_onnx("fp32", GraphFiles.in_folder(built), built_checkpoint.calibration)
    expected = judge.maps(images[:3])

    def run(batch: NDArray[np.uint8]) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
        distances, releases = judge.run(batch)
        distances[0][1, 0, 0] = np.inf
        return distances, releases

    maps = replace(judge, run=run).maps(images[:3])
    np.testing.assert_allclose(maps[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert np.isnan(maps[1]).all()


def test_a_judge_of_another_image_size_is_told(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    other = replace(built_checkpoint.calibration, image_size=128)
    with pytest.raises(
        ExportError, match=r"does not fit its calibration: distance maps are .* 128-pixel images"
    ):
        GraphJudge.of_onnx("fp32", GraphFiles.in_folder(built), other).maps(images)


def test_onnx_judge_refuses_graphs_of_other_weights(
    built: Path, built_checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> None:
    other = replace(built_checkpoint.calibration, weights_id=1)
    with pytest.raises(ExportError, match=r"answers for weights .*; expected 1"):
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

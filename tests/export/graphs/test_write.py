"""The two graphs: names, types and shapes as the design fixes them, any batch size, the id of the weights inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.builds.up_to_date import build_category
from export.graphs.chain import open_session
from export.product import ProductPaths
from tests.conftest import CATEGORY, FitTiny
from train.checkpoint.header import read_header
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData

SIZE = 64
Tensors = dict[str, tuple[str, list[str | int]]]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def build(tiny_build: Path) -> Path:
    return tiny_build / CATEGORY


def random_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def signature(path: Path) -> tuple[Tensors, Tensors]:
    """Type and shape of each input and output, in their order."""
    session = open_session(path)
    inputs = {tensor.name: (tensor.type, tensor.shape) for tensor in session.get_inputs()}
    outputs = {tensor.name: (tensor.type, tensor.shape) for tensor in session.get_outputs()}
    return inputs, outputs


def test_teacher_takes_plain_bytes_and_gives_three_feature_maps(build: Path, checkpoint: Checkpoint) -> None:
    inputs, outputs = signature(build / "teacher.onnx")
    assert inputs == {"image": ("tensor(uint8)", ["batch", SIZE, SIZE, 3])}
    assert outputs == {
        f"teacher_{stage}": ("tensor(float)", ["batch", channels, SIZE // stride, SIZE // stride])
        for stage, channels, stride in zip((1, 2, 3), checkpoint.teacher.channels, (4, 8, 16), strict=True)
    }


def test_student_takes_the_teachers_features_and_gives_distance_maps(build: Path) -> None:
    inputs, outputs = signature(build / "student.onnx")
    assert list(inputs) == ["image", "teacher_1", "teacher_2", "teacher_3"]
    _, teacher_outputs = signature(build / "teacher.onnx")
    assert {name: inputs[name] for name in teacher_outputs} == teacher_outputs
    assert list(outputs) == ["distance_1", "distance_2", "distance_3", "release_id"]
    for stage, stride in zip((1, 2, 3), (4, 8, 16), strict=True):
        assert outputs[f"distance_{stage}"] == ("tensor(float)", ["batch", SIZE // stride, SIZE // stride])
    assert outputs["release_id"] == ("tensor(int64)", ["batch", 1])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_carries_the_weights_id_of_its_checkpoint(
    build: Path, checkpoint: Checkpoint, batch: int
) -> None:
    image = random_images(batch)
    names = ["teacher_1", "teacher_2", "teacher_3"]
    features = open_session(build / "teacher.onnx").run(names, {"image": image})
    *distances, release = open_session(build / "student.onnx").run(
        None, {"image": image, **dict(zip(names, features, strict=True))}
    )
    assert [len(distance) for distance in distances] == [batch] * 3
    assert release.tolist() == [[checkpoint.weights_id]] * batch


def test_an_image_is_judged_alone_as_in_a_batch(build: Path) -> None:
    session, image = open_session(build / "teacher.onnx"), random_images(3)
    together = session.run(None, {"image": image})
    for index in range(3):
        alone = session.run(None, {"image": image[index : index + 1]})
        for ours, theirs in zip(alone, together, strict=True):
            np.testing.assert_allclose(ours[0], theirs[index], rtol=0, atol=1e-5)


def test_normalisation_is_inside(build: Path, checkpoint: Checkpoint) -> None:
    image = random_images(2)
    found = open_session(build / "teacher.onnx").run(None, {"image": image})
    mean, std = checkpoint.teacher.mean, checkpoint.teacher.std  # of bytes, 0 to 255
    assert mean.min() > 1
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
    expected = checkpoint.teacher.body((pixels - mean) / std)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(force=True), rtol=0, atol=1e-4)


def test_sharpening_is_inside(tiny_data: CategoryData, fit_tiny: FitTiny, tmp_path: Path) -> None:
    path = fit_tiny(tiny_data, tmp_path / "runs" / CATEGORY, sharpening=(2.0,))
    assert read_header(path).provenance.sharpening == 2
    build_category(
        ProductPaths(CATEGORY, tmp_path / "runs", tmp_path / "build")
    )  # its gate compares verdicts
    teacher, image = load_checkpoint(path).teacher, random_images(2)
    found = open_session(tmp_path / "build" / CATEGORY / "teacher.onnx").run(None, {"image": image})
    expected = [feature.numpy(force=True) for feature in teacher(torch.from_numpy(image))]
    teacher.sharpen(0)
    soft = [feature.numpy(force=True) for feature in teacher(torch.from_numpy(image))]
    for ours, theirs, without in zip(found, expected, soft, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        assert np.abs(theirs - without).max() > 0.1

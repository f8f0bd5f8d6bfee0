"""Every way in which a graph could judge otherwise than its checkpoint is planted once and found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.errors import VerificationError
from export.graphs.structure import (
    PARITY_BATCHES,
    check_generation_blocks,
    check_parity,
    check_structure,
    reference_distances,
    verify_structure,
)
from export.manifest import GraphFiles
from tests.conftest import CATEGORY
from tests.products import change_weights
from train.checkpoint.tensors import Checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def files(tiny_build: Path, tmp_path: Path) -> GraphFiles:
    """Copies to spoil."""
    return GraphFiles(
        *(
            Path(shutil.copy(tiny_build / CATEGORY / name, tmp_path))
            for name in ("teacher.onnx", "student.onnx")
        )
    )


def edit(path: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def insert_before(graph: onnx.GraphProto, node: onnx.NodeProto, kind: str, *extra: str) -> None:
    """Put a node of `kind` between a node and its first input."""
    inserted = helper.make_node(kind, [node.input[0], *extra], ["planted"])
    graph.node.insert(list(graph.node).index(node), inserted)
    node.input[0] = "planted"


def initializer(graph: onnx.GraphProto, value: NDArray[np.float32]) -> onnx.TensorProto:
    """The constant that equals `value`."""
    return next(
        tensor
        for tensor in graph.initializer
        if tuple(tensor.dims) == value.shape and np.array_equal(numpy_helper.to_array(tensor), value)
    )


def convolution(graph: onnx.GraphProto, weight: NDArray[np.float32]) -> onnx.NodeProto:
    name = initializer(graph, weight).name
    return next(node for node in graph.node if name in node.input)


def block_weights(checkpoint: Checkpoint, stage: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    block = checkpoint.student.generation_blocks[stage - 1]
    return block.first.weight.numpy(force=True), block.second.weight.numpy(force=True)  # type: ignore[union-attr, operator]


def test_what_export_wrote_is_accepted(
    checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8]
) -> None:
    verify_structure(checkpoint, files)
    parity = check_parity(checkpoint, files, images)
    assert tuple(result.batch for result in parity) == PARITY_BATCHES == (1, 3, 8)
    assert all(0 <= result.mean_difference <= result.max_difference <= 1e-4 for result in parity)


def test_parity_is_of_maps_that_say_something(checkpoint: Checkpoint, images: NDArray[np.uint8]) -> None:
    for distances in reference_distances(checkpoint, images[:8]):
        assert distances.max() > 0.1
        assert np.ptp(distances) > 100 * 1e-4


@pytest.mark.parametrize("kind", ["RandomUniformLike", "RandomNormalLike", "Bernoulli", "Dropout"])
def test_a_random_node_is_found(files: GraphFiles, kind: str) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.op_type == "Relu")
        insert_before(graph, node, kind)

    edit(files.student, plant)
    with pytest.raises(VerificationError, match=rf"student\.onnx holds random nodes \['{kind}'\]"):
        check_structure(files.student)


def test_a_batchnorm_in_training_mode_is_found(files: GraphFiles) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.op_type == "Relu")
        (channels,) = [
            value.type.tensor_type.shape.dim[1].dim_value
            for value in onnx.shape_inference.infer_shapes(onnx.load(files.student)).graph.value_info
            if value.name == node.input[0]
        ]
        names = ["norm_scale", "norm_bias", "norm_mean", "norm_var"]
        for name in names:
            graph.initializer.append(numpy_helper.from_array(np.ones(channels, np.float32), name))
        outputs, inputs = ["planted", "running_mean", "running_var"], [node.input[0], *names]
        inserted = helper.make_node("BatchNormalization", inputs, outputs, name="forgotten", training_mode=1)
        graph.node.insert(list(graph.node).index(node), inserted)
        node.input[0] = "planted"

    edit(files.student, plant)
    with pytest.raises(
        VerificationError, match=r"student\.onnx holds BatchNorm in training mode \(forgotten\)"
    ):
        check_structure(files.student)


def test_statistics_of_the_batch_are_found_by_their_verdicts(
    checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8]
) -> None:
    """BatchNorm in training mode as plain operators, which no name gives away."""

    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.op_type == "Sigmoid")
        graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "batch_axes"))
        mean = helper.make_node("ReduceMean", [node.input[0], "batch_axes"], ["batch_mean"])
        graph.node.insert(list(graph.node).index(node), mean)
        insert_before(graph, node, "Sub", "batch_mean")

    edit(files.student, plant)
    check_structure(files.student)
    with pytest.raises(VerificationError, match="Distance maps differ by"):
        check_parity(checkpoint, files, images)


def test_a_mask_made_by_comparison_is_found(files: GraphFiles) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.op_type == "Relu")
        graph.initializer.append(numpy_helper.from_array(np.float32(0.4), "ratio"))
        at = list(graph.node).index(node)
        graph.node.insert(at, helper.make_node("Greater", [node.input[0], "ratio"], ["kept"]))
        graph.node.insert(at + 1, helper.make_node("Where", ["kept", node.input[0], "ratio"], ["hidden"]))
        node.input[0] = "hidden"

    edit(files.student, plant)
    with pytest.raises(VerificationError, match=r"holds masking nodes \['Greater', 'Where'\]"):
        check_structure(files.student)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_mask_baked_in_as_a_constant_is_found(
    checkpoint: Checkpoint, files: GraphFiles, stage: int
) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        node = convolution(graph, block_weights(checkpoint, stage)[0])
        side = 64 // 2 ** (stage + 1)
        mask = (np.random.default_rng(0).random((side, side)) > 0.4).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(mask, "mask"))
        insert_before(graph, node, "Mul", "mask")

    edit(files.student, plant)
    with pytest.raises(VerificationError, match=rf"stage {stage}'s features by a constant .*: a mask"):
        check_generation_blocks(checkpoint, files.student)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_changed_generation_convolution_is_found(
    checkpoint: Checkpoint, files: GraphFiles, stage: int, layer: int
) -> None:
    """By one bit of one weight: far less than parity would see."""

    def plant(graph: onnx.GraphProto) -> None:
        tensor = initializer(graph, block_weights(checkpoint, stage)[layer])
        values = numpy_helper.to_array(tensor).copy()
        values.flat[7] = np.nextafter(values.flat[7], np.float32(9))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    check_generation_blocks(checkpoint, files.student)
    edit(files.student, plant)
    with pytest.raises(VerificationError, match=rf"lacks the generation block of stage {stage}"):
        check_generation_blocks(checkpoint, files.student)


def test_a_block_that_is_bypassed_is_found(checkpoint: Checkpoint, files: GraphFiles) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        first, second = (convolution(graph, weight) for weight in block_weights(checkpoint, 2))
        relu = next(node for node in graph.node if second.input[0] in node.output)
        relu.op_type = "Sigmoid"
        assert relu.input[0] == first.output[0]

    edit(files.student, plant)
    with pytest.raises(VerificationError, match="wires the generation block of stage 2 in another way"):
        check_generation_blocks(checkpoint, files.student)


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_other_distances_are_found(
    checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8], which: str
) -> None:
    """A convolution of the backbone that has lost one of its kernels, in either graph."""

    def plant(graph: onnx.GraphProto) -> None:
        node = [node for node in graph.node if node.op_type == "Conv"][1]
        tensor = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
        values = numpy_helper.to_array(tensor).copy()
        values[0] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(getattr(files, which), plant)
    with pytest.raises(
        VerificationError, match=r"differ by .* from the checkpoint's at batch 1; expected at most 1e-04"
    ):
        check_parity(checkpoint, files, images)


def test_not_a_number_is_found(checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8]) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        weight = block_weights(checkpoint, 1)[1]
        tensor = initializer(graph, weight)
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(weight, np.nan), tensor.name))

    edit(files.student, plant)
    with pytest.raises(VerificationError, match="differ by nan"):
        check_parity(checkpoint, files, images)


def test_another_id_of_the_weights_is_found(
    checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8]
) -> None:
    change_weights(files.student, checkpoint.weights_id, 42)
    with pytest.raises(VerificationError, match=rf"gives weights \[42\]; expected {checkpoint.weights_id}"):
        check_parity(checkpoint, files, images)


def test_what_onnx_itself_refuses_is_refused(files: GraphFiles) -> None:
    def plant(graph: onnx.GraphProto) -> None:
        graph.node[3].input[0] = "nowhere"

    edit(files.teacher, plant)
    with pytest.raises(VerificationError, match=r"teacher\.onnx is no valid ONNX graph"):
        check_structure(files.teacher)


def test_operators_of_another_domain_are_refused(files: GraphFiles) -> None:
    model = onnx.load(files.teacher)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, files.teacher)
    with pytest.raises(VerificationError, match=r"operator domains \['com\.microsoft'\]"):
        check_structure(files.teacher)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_structure_holds_in_every_precision(
    precision: str, built: Path, built_checkpoint: Checkpoint
) -> None:
    verify_structure(built_checkpoint, GraphFiles.in_folder(built / precision))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_changed_generation_weight_is_found_in_every_precision(
    precision: str, built: Path, built_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = built if precision == "fp32" else built / precision
    path = Path(shutil.copy(folder / "student.onnx", tmp_path))
    model = onnx.load(path)
    name = "generation_blocks.1.second.weight"
    tensor = next(
        tensor for tensor in model.graph.initializer if name in tensor.name and len(tensor.dims) == 4
    )
    value = numpy_helper.to_array(tensor).copy()
    value.flat[7] = value.flat[7] + (3 if value.dtype == np.int8 else 0.01)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    with pytest.raises(VerificationError, match="lacks the generation block of stage 2"):
        check_generation_blocks(built_checkpoint, path)

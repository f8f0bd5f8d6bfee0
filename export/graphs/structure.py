"""A graph is accepted only with the checkpoint's structure, weights and distances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from export.errors import VerificationError
from export.graphs.chain import OnnxChain, open_session
from export.graphs.write import OPSET
from export.manifest import GraphFiles, Parity
from model_repository.onnx_contents import OnnxError, require_plain
from train.calibration.sam import SamForeground
from train.checkpoint.tensors import Checkpoint
from train.method.residuals import StageResiduals
from train.method.student import GenerationBlock

PARITY_BATCHES = (1, 3, 8)
MAX_DISTANCE_DIFFERENCE = 1e-4
PIECES = ((128, 192), (640, 512))  # rows and columns, at most, of images that keep their own size
CONVOLUTIONS_OF_SHARED = 2
FOREGROUND_BATCHES = (1, 2)  # SAM takes seconds an image on a CPU
MAX_FOREGROUND_DIFFERENCE = 1e-3  # share of the pixels: those that lie on the mask's very edge

# ONNX's own ends at 2 GiB; the paper's pair is a tenth of that.
MAX_GRAPH_BYTES = 1 << 30
MAX_IR_VERSION = 10  # what the ONNX Runtime of the pinned servers reads
PRECISION_OPERATORS = {"Cast", "QuantizeLinear", "DequantizeLinear"}

# What would make a verdict depend on chance, or hide a mask.
FORBIDDEN_OPERATORS = {
    "random": {
        "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    },
    "masking": {"Where", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "NonZero", "ScatterND"},
}  # fmt: skip


def verify_structure(checkpoint: Checkpoint, files: GraphFiles) -> None:
    """All that can be seen without running the graphs, whatever their precision.

    Raises:
        VerificationError: names the first fault.
    """
    for path in files:
        check_structure(path)
    check_convolutions(files, checkpoint)
    check_generation_blocks(checkpoint, files.student)


def verify_foreground(sam: SamForeground, path: Path, images: NDArray[np.uint8]) -> float:
    """Check foreground.onnx: its structure, and its masks against PyTorch's.

    Args:
        sam: what it was made from.
        path: the ONNX file.
        images: [N, H, W, 3] uint8 real images, at least max(FOREGROUND_BATCHES).

    Returns:
        The largest share of pixels that differ in a batch.

    Raises:
        VerificationError: names the first fault.
    """
    check_structure(path, forbidden=("random",))
    session = open_session(path)
    difference = 0.0
    for batch in FOREGROUND_BATCHES:
        image = images[:batch]
        (masks,) = session.run(["foreground"], {"image": image})
        with torch.inference_mode():
            expected = sam.cpu()(torch.from_numpy(image)).numpy()
        if masks.shape != expected.shape or masks.dtype != expected.dtype:
            raise VerificationError(
                f"{path.name} gives {masks.dtype} {list(masks.shape)}; expected {expected.dtype} "
                f"{list(expected.shape)}."
            )
        difference = max(difference, float((masks != expected).mean()))
    if difference > MAX_FOREGROUND_DIFFERENCE:
        raise VerificationError(
            f"{path.name} differs from PyTorch in {difference:.2%} of the masks' pixels; expected at most "
            f"{MAX_FOREGROUND_DIFFERENCE:.2%}."
        )
    return difference


def check_structure(path: Path, *, forbidden: Sequence[str] = ("random", "masking")) -> None:
    """ONNX's own checker in full, one operator domain, no external data, and none of the forbidden operators.

    Args:
        path: the ONNX file.
        forbidden: kinds in `FORBIDDEN_OPERATORS`; a graph whose output is a mask may compare.

    Raises:
        VerificationError: see above.
    """
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise VerificationError(
            f"{path.name} has {path.stat().st_size / 1e9:.1f} GB; expected at most {MAX_GRAPH_BYTES / 1e9:.1f}; "
            "it is not opened."
        )
    try:  # first: the checker itself would open the other files
        require_plain(path)
    except OnnxError as error:
        raise VerificationError(f"{path.name} {error}.") from None
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"{path.name} is no valid ONNX graph: {error}.") from None
    for fault in _faults(onnx.load(path, load_external_data=False), forbidden):
        raise VerificationError(f"{path.name} {fault}.")


def _faults(model: onnx.ModelProto, forbidden: Sequence[str]) -> Iterator[str]:
    """What is wrong with a valid model, the rest of a sentence each."""
    opset = model.opset_import[0].version
    if opset != OPSET or model.ir_version > MAX_IR_VERSION:
        yield (
            f"has opset {opset} and IR version {model.ir_version}; expected opset {OPSET} and at most IR version "
            f"{MAX_IR_VERSION}, which Triton's ONNX Runtime reads"
        )
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    for node in nodes:
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if node.op_type == "BatchNormalization" and (training or len(node.output) > 1):
            yield f"holds BatchNorm in training mode ({node.name}): a verdict would depend on the rest of its batch"
    operators = {node.op_type for node in nodes}
    for kind in forbidden:
        if present := operators & FORBIDDEN_OPERATORS[kind]:
            yield f"holds {kind} nodes {sorted(present)}; expected none at inference"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of the graphs within If, Loop and Scan too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def check_convolutions(files: GraphFiles, checkpoint: Checkpoint) -> None:
    """Both graphs hold exactly as many convolutions as their networks.

    Raises:
        VerificationError: more or fewer.
    """
    for path, network in zip(files, (checkpoint.teacher, checkpoint.student), strict=True):
        expected = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
        # Where all places share their statistics, whitening and the nearest usual difference are convolutions too.
        shared = [
            module for module in network.modules() if isinstance(module, StageResiduals) and module.is_shared
        ]
        expected += CONVOLUTIONS_OF_SHARED * len(shared)
        count = sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)
        if count != expected:
            raise VerificationError(
                f"{path.name} holds {count} convolutions; expected the {expected} of its network."
            )


def check_generation_blocks(checkpoint: Checkpoint, path: Path) -> None:
    """Each stage has its two generation convolutions, wired as a block, with the checkpoint's weights.

    In float32 the weights must be equal bit for bit. In half precision they are compared after rounding, in int8 they
    may differ by half a step of the scale.

    Raises:
        VerificationError: one is missing, changed, or fed by anything but the backbone.
    """
    graph = Wiring(onnx.load(path).graph)
    for stage, block in enumerate(checkpoint.student.generation_blocks, start=1):
        if not isinstance(block, GenerationBlock):
            continue  # a stage without one compares the student's own features
        first = graph.find_convolution(block.first)
        second = graph.find_convolution(block.second)
        if first is None or second is None:
            raise VerificationError(
                f"{path.name} lacks the generation block of stage {stage} with the checkpoint's weights; export again."
            )
        relu = graph.source(second.input[0])
        if relu is None or relu.op_type != "Relu" or graph.source(relu.input[0]) is not first:
            raise VerificationError(
                f"{path.name} wires the generation block of stage {stage} in another way."
            )
        source = graph.source(first.input[0])
        if source is None or (
            source.op_type == "Mul" and any(name in graph.constants for name in source.input)
        ):
            raise VerificationError(
                f"{path.name} multiplies stage {stage}'s features by a constant before the generation block: a mask."
            )


class Wiring:
    """Which node computes which tensor; nodes that only change the precision are skipped."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._producers = {output: node for node in self.nodes for output in node.output}

    def source(self, tensor: str) -> onnx.NodeProto | None:
        """The node that computes a tensor."""
        node = self._producers.get(tensor)
        while node is not None and node.op_type in PRECISION_OPERATORS:
            node = self._producers.get(node.input[0])
        return node

    def find_convolution(self, layer: torch.nn.Conv2d) -> onnx.NodeProto | None:
        """The Conv node with this layer's weight and bias."""
        assert layer.bias is not None
        values = [layer.weight.numpy(force=True), layer.bias.numpy(force=True)]
        for node in self.nodes:
            if node.op_type == "Conv" and len(node.input) == 3 and all(map(self._is, node.input[1:], values)):
                return node
        return None

    def _is(self, tensor: str, wanted: NDArray[np.float32]) -> bool:
        """Whether a constant is this value, as far as its precision can hold it."""
        constant = self.constants.get(tensor)
        if constant is not None:
            return constant.shape == wanted.shape and np.array_equal(constant, wanted.astype(constant.dtype))
        node = self._producers.get(tensor)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in self.constants:
            return False
        steps, scale = self.constants[node.input[0]], self.constants[node.input[1]]
        if steps.shape != wanted.shape:
            return False
        scale = scale.reshape(-1, *[1] * (wanted.ndim - 1))  # one for each output channel
        return bool((np.abs(steps * scale - wanted) <= 0.501 * scale).all())


def check_parity(checkpoint: Checkpoint, files: GraphFiles, images: NDArray[np.uint8]) -> list[Parity]:
    """Distance maps of the ONNX chain against PyTorch's, at each batch size of PARITY_BATCHES.

    Args:
        checkpoint: what the graphs were made from.
        files: the two ONNX files.
        images: [N, H, W, 3] uint8 real images, at least max(PARITY_BATCHES), or one of a checkpoint whose images keep
            their own size: of those the graphs are compared on pieces of two shapes.

    Raises:
        VerificationError: a difference beyond MAX_DISTANCE_DIFFERENCE, other shapes, or another id of the weights.
    """
    chain = OnnxChain.open(files)
    results = []
    for compared in _compared(images, native=checkpoint.config.is_native):
        batch = len(compared)
        expected = reference_distances(checkpoint, compared)
        distances, release = chain.run(compared)
        if release.shape != (batch, 1) or (release != checkpoint.weights_id).any():
            raise VerificationError(
                f"student.onnx gives weights {release.ravel()[:1]}; expected {checkpoint.weights_id}."
            )
        shapes, expected_shapes = ([list(stage.shape) for stage in maps] for maps in (distances, expected))
        if shapes != expected_shapes:
            raise VerificationError(f"Distance maps have shapes {shapes}; expected {expected_shapes}.")
        # Distances of `mahalanobis` have no bound: as a share of the stage's largest, where that is above 1.
        bounded = checkpoint.config.distance == "cosine"
        differences = np.concatenate(
            [
                np.abs(ours - theirs).ravel() / (1.0 if bounded else max(1.0, float(theirs.max())))
                for ours, theirs in zip(distances, expected, strict=True)
            ]
        )
        largest, mean = float(differences.max()), float(differences.mean())
        # Not `>`: a difference that is no number must fail too.
        if not largest <= MAX_DISTANCE_DIFFERENCE:
            raise VerificationError(
                f"Distance maps differ by {largest:.2e} from the checkpoint's at batch {batch}; "
                f"expected at most {MAX_DISTANCE_DIFFERENCE:.0e}."
            )
        results.append(Parity(batch=batch, max_difference=largest, mean_difference=mean))
    return results


def _compared(images: NDArray[np.uint8], *, native: bool) -> Iterator[NDArray[np.uint8]]:
    """The images of each comparison: batches of several sizes, or pieces of several shapes."""
    if native:
        yield from (images[:1, :height, :width] for height, width in PIECES)
    else:
        yield from (images[:batch] for batch in PARITY_BATCHES)


def reference_distances(checkpoint: Checkpoint, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What PyTorch gives: [B, h, w] a stage, on the CPU."""
    with torch.inference_mode():
        image = torch.from_numpy(images)
        distances = checkpoint.student.distances(
            image, checkpoint.teacher(image), scale=checkpoint.config.distance_scale
        )
    return [distance.numpy() for distance in distances]

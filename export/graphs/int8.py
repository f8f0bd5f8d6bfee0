"""int8 written into the graphs: quantise and dequantise nodes around the convolutions that can be quantised.

onnxruntime.quantization writes them in the form that TensorRT takes (symmetric, weights by channel, biases in float).
The server's ONNX Runtime runs what it writes, and it needs no GPU, which NVIDIA's ModelOpt wants for its own
calibration. Ranges come from good images of the category itself.

Some convolutions lose too much in int8: a first one that reads bytes, thin ones of few channels. Each convolution is
quantised alone and the change of the anomaly maps is measured; those that change them most stay in float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, create_calibrator

from export.errors import ExportError, VerificationError
from export.graphs.chain import Feed, Images, OnnxChain, open_session, teacher_features
from export.graphs.fp16 import connected
from export.manifest import GraphFiles
from export.tensors import TEACHER_OUTPUTS
from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances
from train.support.progress import progress_bar

MIN_CALIBRATION_IMAGES = 10
MAX_CALIBRATION_IMAGES = 64  # ranges settle long before
SENSITIVITY_IMAGES = 16
# Root mean square change of the anomaly maps, over their standard deviation.
MAX_CHANGE = 0.25
SHARE_GIVEN_UP = 0.1  # of the quantised convolutions, at a time, until the change is small enough
GRAPHS = ("teacher", "student")

Ranges = Any  # onnxruntime.quantization.TensorsData


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one convolution of a graph, `teacher` or `student`, alone does.

    Attributes:
        change: root mean square change of the anomaly maps, over their standard deviation.
    """

    graph: str
    node: str
    change: float


@dataclass(frozen=True)
class Quantized:
    """Both graphs in int8.

    Attributes:
        in_float: the convolutions that stayed in float, most sensitive first.
        n_convolutions: of both graphs, those in float included.
        change: of the anomaly maps, see `Sensitivity.change`.
    """

    teacher: onnx.ModelProto
    student: onnx.ModelProto
    in_float: list[Sensitivity]
    n_convolutions: int
    change: float


def quantize(
    files: GraphFiles, images: Images, calibration: Calibration, *, max_change: float = MAX_CHANGE
) -> Quantized:
    """Quantise a verified float32 pair.

    Args:
        files: teacher.onnx and student.onnx.
        images: [N, H, W, 3] uint8, good images that the category was trained on.
        calibration: how the maps are fused.
        max_change: largest change of the anomaly maps that is accepted, see `Sensitivity.change`.

    Raises:
        ExportError: too few images.
    """
    if len(images) < MIN_CALIBRATION_IMAGES:
        raise ExportError(
            f"int8 is calibrated on good training images of the category: found {len(images)}; expected at least "
            f"{MIN_CALIBRATION_IMAGES}; add images or export with --precision fp16."
        )
    pair = _Pair.load(files, spread(images, MAX_CALIBRATION_IMAGES))
    judge = _Judge(pair, spread(images, SENSITIVITY_IMAGES), calibration)
    ranked = sorted(_sensitivities(pair, judge), key=lambda convolution: convolution.change)
    chosen = ranked
    while True:
        models = {
            graph: pair.quantized(
                graph, [convolution.node for convolution in chosen if convolution.graph == graph]
            )
            for graph in GRAPHS
        }
        change = judge.change(models)
        if change <= max_change or not chosen:
            break
        chosen = chosen[: min(len(chosen) - 1, int(len(chosen) * (1 - SHARE_GIVEN_UP)))]
    return Quantized(
        **models, in_float=ranked[len(chosen) :][::-1], n_convolutions=len(ranked), change=change
    )


def spread(images: Images, count: int) -> Images:
    """At most `count` of the images, evenly from first to last."""
    chosen: Images = images[np.linspace(0, len(images) - 1, num=min(count, len(images))).astype(int)]
    return chosen


@dataclass(frozen=True)
class _Pair:
    """The float32 graphs and the ranges of their activations."""

    models: Mapping[str, onnx.ModelProto]
    ranges: Mapping[str, Ranges]

    @classmethod
    def load(cls, files: GraphFiles, images: Images) -> _Pair:
        teacher = open_session(files.teacher)
        image_feeds = [{"image": image[None]} for image in images]
        student_feeds = (feed | teacher_features(teacher, feed["image"]) for feed in image_feeds)
        ranges = {
            "teacher": _activation_ranges(files.teacher, iter(image_feeds)),
            "student": _activation_ranges(files.student, student_feeds),
        }
        return cls({path.stem: onnx.load(path) for path in files}, ranges)

    def convolutions(self, graph: str) -> list[str]:
        """Those of the networks; to what the teacher's features lead is the student's distance, left in float."""
        nodes = list(self.models[graph].graph.node)
        distance = (
            connected(nodes, set(), set(TEACHER_OUTPUTS), forward=True) if graph == "student" else set()
        )
        return [node.name for node in nodes if node.op_type == "Conv" and node.name not in distance]

    def quantized(self, graph: str, nodes: Sequence[str]) -> onnx.ModelProto:
        """The graph with these convolutions quantised."""
        model = onnx.ModelProto()
        model.CopyFrom(self.models[graph])
        if not nodes:
            return model
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=self.ranges[graph],
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv"],
            # TensorRT takes symmetric int8 and float biases.
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        return _without_unused_domains(quantizer.model.model)


class _Judge:
    """Anomaly maps of some images, by quantised graphs beside the float ones."""

    def __init__(self, pair: _Pair, images: Images, calibration: Calibration) -> None:
        self._images, self._calibration = images, calibration
        self._float = _sessions(pair.models)
        self._expected = self._maps(self._float)

    def change(self, quantized: Mapping[str, onnx.ModelProto]) -> float:
        """See `Sensitivity.change`; a graph that is not among these is the float one."""
        maps = self._maps({**self._float, **_sessions(quantized)})
        mean_square = float(np.square(maps - self._expected).mean())
        return float(np.sqrt(mean_square) / max(float(self._expected.std()), 1e-12))

    def _maps(self, sessions: Mapping[str, ort.InferenceSession]) -> NDArray[np.float32]:
        chain = OnnxChain(sessions["teacher"], sessions["student"])
        try:
            return fuse_distances(chain.run(self._images)[0], self._calibration.fusion)
        except ValueError as error:
            raise VerificationError(
                f"The graphs cannot be quantised: {error}; export with --precision fp32."
            ) from None


def _sessions(models: Mapping[str, onnx.ModelProto]) -> dict[str, ort.InferenceSession]:
    return {graph: open_session(model.SerializeToString()) for graph, model in models.items()}


def _sensitivities(pair: _Pair, judge: _Judge) -> list[Sensitivity]:
    nodes = [(graph, node) for graph in GRAPHS for node in pair.convolutions(graph)]
    sensitivities = []
    with progress_bar("Sensitivity to int8", len(nodes)) as bar:
        for graph, node in nodes:
            change = judge.change({graph: pair.quantized(graph, [node])})
            sensitivities.append(Sensitivity(graph, node, change))
            bar.advance(note=node)
    return sensitivities


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds one after the other, as the calibrator asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _activation_ranges(path: Path, feeds: Iterator[Feed]) -> Ranges:
    """Smallest and largest value of each convolution's input and output."""
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            path,
            op_types_to_calibrate=["Conv"],
            augmented_model_path=Path(folder, "augmented.onnx"),
            extra_options={"symmetric": True},
        )
        calibrator.collect_data(_Reader(feeds))
        return calibrator.compute_data()


def _without_unused_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """The quantiser imports every domain it knows; `check_structure` refuses all but ONNX's own."""
    domains = {node.domain for node in model.graph.node} | {""}
    used = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)
    return model

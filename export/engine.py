"""Would TensorRT take this graph? Its own parser and builder say so, without a GPU.

`tensorrt_rtx`, from PyPI, is TensorRT for RTX cards: NVIDIA's parser and builder, ahead of time. Its engines are not
for Triton, but its verdict on a graph is: does it parse and build, strongly typed, in these types and shapes?
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.table import Table

from export.errors import ExportError, VerificationError
from export.graphs import GraphFiles
from train.files import replacing

COMPUTE_CAPABILITY = "SM89"  # Ada; the verdict is the same for every GPU that TensorRT for RTX knows
PROFILE = (1, 4, 8)  # images a batch: smallest, best, largest


@dataclass(frozen=True)
class CheckedEngine:
    """What TensorRT made of a graph.

    Attributes:
        graph: the file it was built from.
        precision: of the graph.
        version: of TensorRT for RTX.
        n_layers: of the parsed network.
        inputs, outputs: name, type and shape of each; -1 is the batch.
        seconds: for parsing and building.
        engine: the engine itself.
    """

    graph: Path
    precision: str
    version: str
    n_layers: int
    inputs: list[str]
    outputs: list[str]
    seconds: float
    engine: bytes

    @property
    def name(self) -> str:
        """The graph and its precision."""
        return f"{self.graph.stem}, {self.precision}"


def check_engines(builds: dict[str, Path]) -> list[CheckedEngine]:
    """Build the teacher and student of each precision.

    Args:
        builds: folders by precision.

    Raises:
        ExportError: TensorRT for RTX is not installed.
        VerificationError: it refuses a graph; the sentence names the node.
    """
    trt = load_tensorrt()
    return [
        build_engine(path, trt=trt, precision=precision)
        for precision, folder in builds.items()
        for path in (GraphFiles.in_folder(folder).teacher, GraphFiles.in_folder(folder).student)
    ]


def load_tensorrt() -> ModuleType:
    """TensorRT for RTX.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except ImportError:
        raise ExportError(
            "TensorRT for RTX, which checks graphs without a GPU, is not installed; `pip install "
            "'astmfr[engine-check]'`."
        ) from None


def keep_engine(checked: CheckedEngine) -> Path:
    """Write an engine beside its graph, as <graph>.rtx."""
    path = checked.graph.with_suffix(".rtx")
    with replacing(path) as temporary:
        temporary.write_bytes(checked.engine)
    return path


def build_engine(path: Path, *, trt: ModuleType, precision: str) -> CheckedEngine:
    """Parse a graph and build its engine ahead of time, in the types that stand in the graph.

    Args:
        path: the ONNX file.
        trt: see `load_tensorrt`.
        precision: of the graph.

    Raises:
        VerificationError: TensorRT refuses the graph; the sentence names the node.
    """
    started, name = time.perf_counter(), f"{path.stem}, {precision}"
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # strongly typed: there is nothing else
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes(), str(path)):
        raise VerificationError(f"TensorRT refuses {name}: {_first_error(parser)}.")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, COMPUTE_CAPABILITY), 0)
    config.add_optimization_profile(_profile(builder, network))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise VerificationError(
            f"TensorRT parses {name} and builds no engine; its own messages above say why."
        )
    return CheckedEngine(
        graph=path,
        precision=precision,
        version=trt.__version__,
        n_layers=network.num_layers,
        inputs=[_described(network.get_input(index)) for index in range(network.num_inputs)],
        outputs=[_described(network.get_output(index)) for index in range(network.num_outputs)],
        seconds=time.perf_counter() - started,
        engine=bytes(engine),
    )


def engine_table(checked: Sequence[CheckedEngine]) -> Table:
    """One line a graph."""
    table = Table(
        title=f"TensorRT for RTX {checked[0].version}, {COMPUTE_CAPABILITY}, strongly typed, no GPU"
    )
    for heading in ("graph", "inputs", "outputs"):
        table.add_column(heading)
    for heading in ("layers", "engine, MiB", "seconds"):
        table.add_column(heading, justify="right")
    for engine in checked:
        table.add_row(
            engine.name,
            "\n".join(engine.inputs),
            "\n".join(engine.outputs),
            str(engine.n_layers),
            f"{len(engine.engine) / 2**20:.1f}",
            f"{engine.seconds:.1f}",
        )
    return table


def _first_error(parser: Any) -> str:
    error = parser.get_error(0)
    return f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}".rstrip(". ")


def _profile(builder: Any, network: Any) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *((batch, *tuple(tensor.shape)[1:]) for batch in PROFILE))
    return profile


def _described(tensor: Any) -> str:
    return f"{tensor.name} {tensor.dtype.name} {list(tensor.shape)}"

"""Whether TensorRT would take a graph: TensorRT for RTX builds it ahead of time, without a GPU.

It has NVIDIA's parser and builder and comes from PyPI. Its engines are for RTX cards and not for Triton; what counts
here is whether the graph parses and builds, strongly typed, in its types and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from rich.table import Column, Table

from export.engines.tensorrt_builder import (
    RTX_PACKAGE,
    BuiltEngine,
    build_engine,
    load_tensorrt_rtx,
)
from export.manifest import GraphFiles
from export.records import EngineOptions
from export.tensors import TensorSpec
from train.support.files import replacing

CHECKED_CAPABILITY = "SM89"  # Ada; the verdict is the same for every GPU that TensorRT for RTX knows


@dataclass(frozen=True)
class CheckedEngine:
    """What TensorRT for RTX made of a graph."""

    graph: Path
    precision: str
    built: BuiltEngine

    @property
    def name(self) -> str:
        """The graph and its precision."""
        return f"{self.graph.stem}, {self.precision}"


def check_engines(builds: Mapping[str, Path]) -> list[CheckedEngine]:
    """Build the teacher and student of each precision ahead of time.

    Args:
        builds: folders by precision.

    Raises:
        ExportError: TensorRT for RTX is not installed.
        VerificationError: it refuses a graph; the message names the node.
    """
    trt = load_tensorrt_rtx()
    return [
        CheckedEngine(
            path,
            precision,
            build_engine(
                trt,
                path,
                name=f"{path.stem}, {precision}",
                options=EngineOptions(),
                compute_capability=CHECKED_CAPABILITY,
            ),
        )
        for precision, folder in builds.items()
        for path in GraphFiles.in_folder(folder)
    ]


def tensorrt_verdict(files: GraphFiles, precision: str) -> str | None:
    """What the manifest says of TensorRT for RTX taking both graphs; None where it is not installed.

    Raises:
        VerificationError: it refuses one; the message names the node.
    """
    if find_spec(RTX_PACKAGE) is None:
        return None
    teacher, student = check_engines({precision: files.teacher.parent})
    return (
        f"TensorRT for RTX {teacher.built.tensorrt}, {CHECKED_CAPABILITY}: teacher {teacher.built.n_layers} layers, "
        f"student {student.built.n_layers}"
    )


def keep_engine(checked: CheckedEngine) -> Path:
    """Write an engine for RTX cards beside its graph, as <graph>.rtx, for ONNX Runtime's RTX provider."""
    path = checked.graph.with_suffix(".rtx")
    with replacing(path) as temporary:
        temporary.write_bytes(checked.built.data)
    return path


def check_table(checked: Sequence[CheckedEngine]) -> Table:
    """One line a graph."""
    title = f"TensorRT for RTX {checked[0].built.tensorrt}, {CHECKED_CAPABILITY}, strongly typed, no GPU"
    numbers = (Column(heading, justify="right") for heading in ("layers", "MiB", "seconds"))
    table = Table("graph", "inputs", "outputs", *numbers, title=title)
    for engine in checked:
        table.add_row(
            engine.name,
            _types(engine.built.inputs),
            _types(engine.built.outputs),
            str(engine.built.n_layers),
            f"{len(engine.built.data) / 2**20:.1f}",
            f"{engine.built.seconds:.1f}",
        )
    return table


def _types(tensors: Sequence[TensorSpec]) -> str:
    """Names and types, with numbered tensors of one type on one line: `teacher_1..3 FP16`."""
    lines = []
    for (kind, stem), run in groupby(
        tensors, key=lambda tensor: (tensor.type, tensor.name.rstrip("0123456789"))
    ):
        first, *others = [tensor.name for tensor in run]
        last = f"..{others[-1].removeprefix(stem)}" if others else ""
        lines.append(f"{first}{last} {kind}")
    return "\n".join(lines)

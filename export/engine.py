"""`export engine`: would TensorRT take the graphs, and the engines that Triton's TensorRT backend loads.

The check is by TensorRT for RTX: NVIDIA's parser and builder, from PyPI, ahead of time and without a GPU. Its engines
are for RTX cards and not for Triton; its verdict on a graph is what is wanted. Engines for Triton come from TensorRT
itself, on the kind of GPU that runs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from export.errors import ExportError
from export.gpu import Gpu, require_gpu
from export.manifest import (
    EngineRecord,
    FileRecord,
    GraphFiles,
    Manifest,
    build_folder,
    engine_path,
    read_manifest,
)
from export.tensorrt_builder import (
    RTX_PACKAGE,
    BuiltEngine,
    EngineOptions,
    build_engine,
    load_tensorrt,
    load_tensorrt_rtx,
)
from export.tensors import TensorSpec
from train.files import replacing, sha256_of, write_text
from train.progress import progress_bar

CHECKED_CAPABILITY = "SM89"  # Ada; the verdict is the same for every GPU that TensorRT for RTX knows
IMAGE_VARIABLE = "ASTMFR_ENGINE_IMAGE"  # set by export.container: the image that this runs in
PROGRESS_UNITS = 100


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


@dataclass(frozen=True)
class EngineBuild:
    """Engines of a build, and whether they were built now or found up to date."""

    records: Mapping[str, EngineRecord]
    built: bool


def check_engines(builds: Mapping[str, Path]) -> list[CheckedEngine]:
    """Build the teacher and student of each precision ahead of time.

    Args:
        builds: folders by precision.

    Raises:
        ExportError: TensorRT for RTX is not installed.
        VerificationError: it refuses a graph; the sentence names the node.
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
        for path in (GraphFiles.in_folder(folder).teacher, GraphFiles.in_folder(folder).student)
    ]


def tensorrt_verdict(files: GraphFiles, precision: str) -> str | None:
    """That TensorRT takes both graphs, for the manifest; None where TensorRT for RTX is not installed.

    Raises:
        VerificationError: it refuses one; the sentence names the node.
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


def engine_options(chosen: Mapping[str, Any]) -> EngineOptions:
    """Options as they were given.

    Raises:
        ExportError: a profile that is not in ascending order.
    """
    try:
        return EngineOptions.model_validate(dict(chosen))
    except ValidationError:
        batches = [chosen[name] for name in ("min_batch", "opt_batch", "max_batch")]
        raise ExportError(
            f"A profile of batches {batches} is not in ascending order; expected --min-batch, --opt-batch and "
            "--max-batch to rise."
        ) from None


def build_category_engines(
    category: str, precision: str, *, build_dir: Path, options: EngineOptions, force: bool
) -> EngineBuild:
    """Build model.plan of a category's teacher and student, with TensorRT and for the GPU that is there.

    They lie beside the graphs as teacher.plan and student.plan; publishing calls each model.plan.

    Args:
        category: the product.
        precision: of the graphs, one of `export.manifest.PRECISIONS`.
        build_dir: holds <category>/, and takes the timing caches.
        options: of the build.
        force: build even when up to date.

    Raises:
        UserError: no build, no TensorRT, no GPU or one that is too old, or a graph that TensorRT refuses; the engines
            that were there stay.
    """
    folder = build_folder(build_dir, category, precision)
    manifest = read_manifest(folder)
    trt, gpu = load_tensorrt(), require_gpu()
    if not force and _up_to_date(manifest, options, trt, gpu):
        return EngineBuild(manifest.engines, built=False)
    return EngineBuild(_build(folder, manifest, trt, gpu, options, build_dir / ".timing"), built=True)


def _build(
    folder: Path, manifest: Manifest, trt: ModuleType, gpu: Gpu, options: EngineOptions, cache_dir: Path
) -> dict[str, EngineRecord]:
    cache = cache_dir / f"{trt.__version__}-{gpu.compute_capability}.cache"
    files = GraphFiles.in_folder(folder)
    built: dict[str, BuiltEngine] = {}
    for path in (files.teacher, files.student):
        with _build_progress(f"{path.stem}, {manifest.precision}") as on_progress:
            built[path.stem] = build_engine(
                trt,
                path,
                name=f"{path.stem}, {manifest.precision}",
                options=options,
                timing_cache=cache.read_bytes() if cache.is_file() else b"",
                on_progress=on_progress,
            )
        with replacing(cache) as temporary:
            temporary.write_bytes(built[path.stem].timing_cache)
    records = {}
    for name, engine in built.items():  # both or neither
        target = engine_path(folder, name)
        with replacing(target) as temporary:
            temporary.write_bytes(engine.data)
        records[name] = EngineRecord(
            file=FileRecord(sha256=sha256_of(target), n_bytes=target.stat().st_size),
            onnx_sha256=manifest.files[f"{name}.onnx"].sha256,
            tensorrt=engine.tensorrt,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            image=os.environ.get(IMAGE_VARIABLE),
            options=options,
            inputs=engine.inputs,
            outputs=engine.outputs,
            seconds=round(engine.seconds, 2),
        )
    changed = manifest.model_copy(update={"engines": records})
    write_text(folder / "manifest.json", changed.model_dump_json(indent=2) + "\n")
    return records


def _up_to_date(manifest: Manifest, options: EngineOptions, trt: ModuleType, gpu: Gpu) -> bool:
    wanted = (options, trt.__version__, gpu.name, gpu.compute_capability)
    return len(manifest.engines) == 2 and all(
        (engine.options, engine.tensorrt, engine.gpu, engine.compute_capability) == wanted
        and engine.onnx_sha256 == manifest.files[f"{name}.onnx"].sha256
        for name, engine in manifest.engines.items()
    )


@contextmanager
def _build_progress(name: str) -> Iterator[Callable[[str, float], None]]:
    """A bar that follows TensorRT's own account of its work."""
    with progress_bar(f"TensorRT: {name}", PROGRESS_UNITS) as bar:
        done = 0

        def on_progress(phase: str, share: float) -> None:
            nonlocal done
            reached = round(share * PROGRESS_UNITS)
            bar.advance(max(reached - done, 0), note=phase)
            done = max(reached, done)

        yield on_progress


def check_table(checked: Sequence[CheckedEngine]) -> Table:
    """One line a graph."""
    table = Table(
        title=f"TensorRT for RTX {checked[0].built.tensorrt}, {CHECKED_CAPABILITY}, strongly typed, no GPU"
    )
    for heading in ("graph", "inputs", "outputs"):
        table.add_column(heading)
    for heading in ("layers", "MiB", "seconds"):
        table.add_column(heading, justify="right")
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
    """A line for each run of tensors of one type that are numbered: `teacher_1..3 FP16`."""
    lines = []
    for (kind, stem), run in groupby(
        tensors, key=lambda tensor: (tensor.type, tensor.name.rstrip("0123456789"))
    ):
        names = [tensor.name for tensor in run]
        last = f"..{names[-1].removeprefix(stem)}" if len(names) > 1 else ""
        lines.append(f"{names[0]}{last} {kind}")
    return "\n".join(lines)


def engine_table(records: Mapping[str, EngineRecord], *, precision: str) -> Table:
    """One line an engine that was built for Triton."""
    table = Table(title="Engines for Triton's TensorRT backend")
    for heading in ("engine", "TensorRT", "GPU", "batches"):
        table.add_column(heading)
    for heading in ("MiB", "seconds"):
        table.add_column(heading, justify="right")
    for name, record in records.items():
        batches = (record.options.min_batch, record.options.opt_batch, record.options.max_batch)
        table.add_row(
            f"{name}, {precision}",
            record.tensorrt,
            f"{record.gpu}, compute capability {record.compute_capability}",
            " / ".join(str(batch) for batch in batches),
            f"{record.file.n_bytes / 2**20:.1f}",
            f"{record.seconds:.1f}",
        )
    return table

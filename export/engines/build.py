"""The engines that Triton's TensorRT backend loads, built on the kind of GPU that runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from rich.table import Column, Table

from export.engines.gpu import require_gpu
from export.engines.tensorrt_builder import BuiltEngine, build_engine, load_tensorrt
from export.errors import ExportError
from export.manifest import (
    GraphFiles,
    Manifest,
    engine_path,
    find_build,
    parse_manifest,
    read_manifest,
    require_engines,
)
from export.records import EngineOptions, EngineRecord, FileRecord
from train.support.files import replacing
from train.support.progress import progress_bar

IMAGE_VARIABLE = "ASTMFR_ENGINE_IMAGE"  # set by export.engines.container: the image that this runs in
PROGRESS_UNITS = 100
DEFAULT_OPT_BATCH = 4


@dataclass(frozen=True)
class EngineBuild:
    """Engines by graph; `built` is False when they were up to date."""

    records: Mapping[str, EngineRecord]
    built: bool


def engine_options(**chosen: Any) -> EngineOptions:
    """Options of a build; `opt_batch` None becomes 4, moved into the range from `min_batch` to `max_batch`.

    Raises:
        ExportError: one is out of range, or the batches are not in ascending order.
    """
    if chosen.get("opt_batch") is None:
        chosen["opt_batch"] = max(chosen["min_batch"], min(DEFAULT_OPT_BATCH, chosen["max_batch"]))
    try:
        return EngineOptions.model_validate(chosen)
    except ValidationError as error:
        faults = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        raise ExportError(f"These options make no engine: {faults}; give others.") from None


def build_category_engines(
    category: str, precision: str, *, build_dir: Path, options: EngineOptions, force: bool
) -> EngineBuild:
    """Build teacher.plan and student.plan beside a category's graphs, for this machine's GPU.

    On the server, categories share a teacher whose bytes agree. So unless forced, its engine is taken from another
    build in `build_dir` that has one of the same graph, built in the same way.

    Args:
        category: the product.
        precision: of the graphs, one of `export.manifest.PRECISIONS`.
        build_dir: holds <category>/, and takes the timing caches.
        options: of the build.
        force: build even when up to date.

    Raises:
        UserError: no build, no TensorRT, no GPU or one that is too old, or a graph that TensorRT refuses; earlier
            engines stay.
    """
    folder = find_build(build_dir, category, precision)
    manifest = read_manifest(folder)
    _refuse_native(manifest)
    trt, gpu = load_tensorrt(), require_gpu()
    origin: dict[str, Any] = {
        "tensorrt": trt.__version__,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "image": os.environ.get(IMAGE_VARIABLE),
        "options": options,
    }
    if not force and _up_to_date(folder, manifest, origin):
        return EngineBuild(manifest.engines, built=False)
    taken = None if force else _same_teacher(build_dir, folder, manifest, origin)
    graphs = [path for path in GraphFiles.in_folder(folder) if taken is None or path.stem != "teacher"]
    timing_cache = build_dir / ".timing" / f"{trt.__version__}-{gpu.compute_capability}.cache"
    engines = _build(graphs, manifest.precision, trt, options, timing_cache)
    plans = {name: engine.data for name, engine in engines.items()}
    if taken is not None:
        plans["teacher"] = engine_path(taken, "teacher").read_bytes()
    with ExitStack() as stack:  # all are written before any is renamed
        for graph, plan in plans.items():
            stack.enter_context(replacing(engine_path(folder, graph))).write_bytes(plan)
    records = {
        name: EngineRecord(
            file=FileRecord.of(engine_path(folder, name)),
            onnx_sha256=manifest.files[f"{name}.onnx"].sha256,
            inputs=engine.inputs,
            outputs=engine.outputs,
            seconds=round(engine.seconds, 2),
            **origin,
        )
        for name, engine in engines.items()
    }
    if taken is not None:
        records = {"teacher": parse_manifest(taken / "manifest.json").engines["teacher"], **records}
    manifest.model_copy(update={"engines": records}).write(folder)
    return EngineBuild(records, built=True)


def _refuse_native(manifest: Manifest) -> None:
    if manifest.config.is_native:
        raise ExportError(
            f"{manifest.category} judges each picture at its own size, and engines are built for one; publish it with "
            "--platform python, or onnxruntime with --execution-provider cuda, or train with a fixed --image-size."
        )


def _build(
    graphs: Sequence[Path], precision: str, trt: ModuleType, options: EngineOptions, timing_cache: Path
) -> dict[str, BuiltEngine]:
    """Build engines of ONNX files, by their names; what was timed goes into the cache at once."""
    built = {}
    for path in graphs:
        name = f"{path.stem}, {precision}"
        with _build_progress(name) as on_progress:
            built[path.stem] = build_engine(
                trt,
                path,
                name=name,
                options=options,
                timing_cache=timing_cache.read_bytes() if timing_cache.is_file() else b"",
                on_progress=on_progress,
            )
        with replacing(timing_cache) as temporary:
            temporary.write_bytes(built[path.stem].timing_cache)
    return built


def _same_teacher(
    build_dir: Path, folder: Path, manifest: Manifest, origin: Mapping[str, Any]
) -> Path | None:
    """The folder of another build whose teacher.plan is of the same graph and was built in the same way."""
    for path in sorted([*build_dir.glob("*/manifest.json"), *build_dir.glob("*/*/manifest.json")]):
        try:
            engine = parse_manifest(path).engines.get("teacher")
        except ExportError:
            continue
        if (
            path.parent != folder
            and engine is not None
            and engine.onnx_sha256 == manifest.files["teacher.onnx"].sha256
            and _was_built(engine, origin)
            and engine.file.describes(engine_path(path.parent, "teacher"))
        ):
            return path.parent
    return None


def _up_to_date(folder: Path, manifest: Manifest, origin: Mapping[str, Any]) -> bool:
    try:
        records = require_engines(folder, manifest)
    except ExportError:
        return False  # there are none, or they were changed
    return all(_was_built(engine, origin) for engine in records.values())


def _was_built(engine: EngineRecord, origin: Mapping[str, Any]) -> bool:
    """Whether an engine was built by this TensorRT for this GPU with these options."""
    return {name: getattr(engine, name) for name in origin} == origin


@contextmanager
def _build_progress(name: str) -> Iterator[Callable[[str, float], None]]:
    """A bar that follows TensorRT's own progress reports."""
    with progress_bar(f"TensorRT: {name}", PROGRESS_UNITS) as bar:
        done = 0

        def on_progress(phase: str, share: float) -> None:
            nonlocal done
            reached = round(share * PROGRESS_UNITS)
            bar.advance(max(reached - done, 0), note=phase)
            done = max(reached, done)

        yield on_progress


def engine_table(records: Mapping[str, EngineRecord], *, precision: str) -> Table:
    """One line an engine."""
    numbers = (Column(heading, justify="right") for heading in ("MiB", "seconds"))
    title = "Engines for Triton's TensorRT backend"
    table = Table("engine", "TensorRT", "GPU", "batches", *numbers, title=title)
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

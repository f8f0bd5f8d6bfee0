"""A release as it was stated: its batches and load; and step by step as the table of `export plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.table import Table
from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.errors import PublishError
from export.manifest import Manifest, read_manifest
from export.records import EngineRecord
from export.releases.record import Record
from export.releases.release import Release
from export.releases.remarks import serving_remarks
from export.releases.repository import Repository, parameters_of
from export.releases.switch import Served, demands_of_others
from export.releases.versions import student_model
from export.serving.backbones import Platform
from export.serving.model_files import spec_of
from export.serving.native_pictures import MAX_BATCH, require_servable
from export.serving.steps import verdict_specs
from export.serving.throughput import chosen_batch, measure_load
from export.tensors import ITEM_BYTES, image_bytes
from model_repository.distance_fusion.map_fusion import Calibration
from train.support.cores import usable_cores

COLUMNS = ("instances", "threads", "queue", "batch", "one image, ms", "bytes in", "bytes out")

# Milliseconds of each step of a build on a platform, by step; `export.serving.service_times` measures them.
TimeSteps = Callable[[Path, Manifest, Platform], Mapping[str, float]]


def plan_table(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    time_steps: TimeSteps,
    images_per_s: float | None = None,
) -> Table:
    """A line for each step as `publish_category` would configure it with the same arguments; nothing is written.

    Raises:
        ExportError: there is no build, or its files were changed after export.
        PublishError: the folder is no model repository.
    """
    manifest = read_manifest(build)
    require_repository(repository)
    release = stated_release(build, manifest, repository, platform, TargetServer(), images_per_s)
    service_ms = time_steps(build, manifest, release.platform)
    configs = release.step_configs()
    sums = {"one image, ms": f"{sum(service_ms.values()):.1f}" if len(service_ms) == len(configs) else ""}
    table = Table(title=f"{manifest.category}: {usable_cores()} cores", show_footer=True)
    table.caption = (
        "\n".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in serving_remarks(release)) or None
    )
    table.add_column("step", footer="all")
    for heading in COLUMNS:
        table.add_column(heading, footer=sums.get(heading, ""), justify="right")
    n_bytes = _tensor_bytes(configs.values(), release)
    for step, config in configs.items():
        table.add_row(*_cells(config, service_ms.get(step), n_bytes))
    return table


def _tensor_bytes(configs: Iterable[pb.ModelConfig], release: Release) -> dict[str, int]:
    """Bytes that one image takes in each tensor of fixed size, by tensor; of any size where it is the usual one."""
    configured = (spec_of(tensor) for config in configs for tensor in (*config.input, *config.output))
    specs = [*configured, *verdict_specs(release.usual_size)]  # the fusion's are of any size
    if release.manifest.config.is_native:
        specs += release.usual_specs
    return {
        spec.name: image_bytes([spec]) for spec in specs if spec.type in ITEM_BYTES and -1 not in spec.shape
    }


def _threads(config: pb.ModelConfig) -> str:
    """Of a run on a CPU; on ONNX Runtime's own backend of the pool that all sessions of the server share."""
    stated = parameters_of(config).get("intra_op_thread_count")
    if config.backend == "onnxruntime":
        return f"pool of {stated}" if stated else "pool"
    return stated or "1"


def _cells(config: pb.ModelConfig, service_ms: float | None, n_bytes: Mapping[str, int]) -> tuple[str, ...]:
    """A step's name and its cells below COLUMNS."""
    on_gpu = config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    inputs = [tensor.name for tensor in config.input if not tensor.optional or tensor.name in n_bytes]
    # The size of an image file is not known.
    bytes_in = sum(n_bytes[name] for name in inputs) if n_bytes.keys() >= set(inputs) else None
    return (
        config.name,
        str(sum(group.count for group in config.instance_group)),
        "-" if on_gpu else _threads(config),
        str(config.dynamic_batching.default_queue_policy.max_queue_size or "any"),
        str(config.max_batch_size),
        "not here" if service_ms is None else f"{service_ms:.1f}",
        "a file" if bytes_in is None else f"{bytes_in:,}",
        f"{sum(n_bytes[tensor.name] for tensor in config.output):,}",
    )


def stated_release(
    build: Path,
    manifest: Manifest,
    repository: Path,
    platform: Platform,
    server: TargetServer,
    images_per_s: float | None,
) -> Release:
    """The release with the batches that its platform wants, where none were stated, and the load of the fusion."""
    require_servable(manifest, platform=platform.name, provider=platform.provider)
    if manifest.config.is_native:
        platform = replace(platform, max_batch_size=MAX_BATCH)
    release = beside_others(Release(manifest, build, Repository(repository), platform, server))
    if not platform.max_batch_size:
        engines = _engines_served_with(release) if platform.name == "tensorrt" else ()
        batch = chosen_batch(
            manifest.config.image_size,
            on_gpu=platform.on_gpu,
            engine_batches=[engine.options.max_batch for engine in engines],
        )
        release = replace(release, platform=replace(platform, max_batch_size=batch))
    if images_per_s is not None:
        before = same_weights(release)
        if before is not None and before.load is not None and before.load.images_per_s == images_per_s:
            load = before.load
        else:
            calibration = Calibration.load(build / "calibration.json")
            load = measure_load(images_per_s, calibration)
        release = replace(release, load=load)
    return release


def _engines_served_with(release: Release) -> list[EngineRecord]:
    """The build's engines, and the teacher's that other categories are served over: all take the same batches."""
    category, teacher = release.manifest.category, release.models["teacher"]
    others = [
        record.manifest.engines["teacher"]
        for name, record in Served.now(release.target).records.items()
        if name != category
        and record.steps["teacher"].model == teacher
        and "teacher" in record.manifest.engines
    ]
    return [*release.manifest.engines.values(), *others]


def same_weights(release: Release) -> Record | None:
    """The live release of the category where it has the same weights: what was timed for that holds on."""
    live = Served.now(release.target).records.get(release.manifest.category)
    return live if live is not None and live.weights_id == release.manifest.weights_id else None


def beside_others(release: Release) -> Release:
    """The release with the names that are free and the demands of others, as the repository is now."""
    student = student_model(release.target, release.manifest)
    others = demands_of_others(release.target, release.manifest.category)
    return replace(release, student=student, others=others)


def require_repository(repository: Path) -> None:
    """Require the project's model repository.

    Raises:
        PublishError: the folder lacks the committed backend of the fusion.
    """
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
        )

"""What would be published for a build, step by step, and why: the table of `export plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.manifest import Manifest, read_manifest
from export.releases.publish import measure_steps, require_repository, with_budget
from export.releases.release import Release
from export.releases.repository import Repository
from export.serving import steps as configs
from export.serving.steps import Platform
from export.tensors import image_bytes
from train.support.cores import usable_cores


@dataclass(frozen=True)
class StepPlan:
    """One step of a category.

    Attributes:
        model: its folder in the repository.
        instances: of the model.
        threads: of a run; 0 where a GPU computes.
        queue_size: requests that may wait.
        queue_ms: milliseconds that one may wait; None is any time.
        batch: images that waiting requests are joined to, at most.
        service_ms: of one image, without any waiting; None where it cannot be measured here.
        bytes_in, bytes_out: of one image; bytes_in is None for an image file.
    """

    model: str
    instances: int
    threads: int
    queue_size: int
    queue_ms: float | None
    batch: int
    service_ms: float | None
    bytes_in: int | None
    bytes_out: int


def plan_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    max_batch_size: int,
    latency_budget_ms: float | None,
    service_ms: Mapping[str, float],
) -> list[StepPlan]:
    """Plan every step as `publish_category` would write it; nothing is written.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: where it would go: categories there may bound the steps they share.
        platform: what runs the backbones.
        max_batch_size: images a batch, at most.
        latency_budget_ms: see `publish_category`.
        service_ms: see `publish_category`.

    Raises:
        ExportError: no build, or its files changed since they were verified.
        PublishError: the folder is no model repository, or an image takes longer than its budget.
    """
    manifest = read_manifest(build)
    require_repository(repository)
    release = Release(manifest, build, Repository(repository), platform, max_batch_size, TargetServer())
    took_ms = measure_steps(release, service_ms)
    if latency_budget_ms is not None:
        release = with_budget(release, latency_budget_ms, took_ms)
    n_bytes = tensor_bytes(manifest)
    return [_step_plan(config, took_ms.get(step), n_bytes) for step, config in release.step_configs().items()]


def tensor_bytes(manifest: Manifest) -> dict[str, int]:
    """Bytes of one image's part of every tensor whose size is known beforehand."""
    size = manifest.config.image_size
    specs = [
        configs.image_spec(size),
        configs.ORIGINAL_SIZE,
        *configs.feature_specs(size, manifest.teacher_channels, precision=manifest.precision),
        *configs.distance_specs(size),
        *configs.verdict_specs(size),
        *([configs.foreground_spec(size)] if manifest.config.foreground != "none" else []),
    ]
    return {spec.name: image_bytes([spec]) for spec in specs}


def plan_table(category: str, steps: list[StepPlan], *, latency_budget_ms: float | None) -> Table:
    """One line a step, and their sum."""
    budget = "no latency budget" if latency_budget_ms is None else f"latency budget {latency_budget_ms:g} ms"
    table = Table(title=f"{category}: {budget}, {usable_cores()} cores", show_footer=True)
    table.add_column("step", footer="all")
    known = [step.service_ms for step in steps if step.service_ms is not None]
    waits = [step.queue_ms for step in steps if step.queue_ms is not None]
    sums = {
        "queue, ms": f"{sum(waits):.1f}" if waits else "",
        "one image, ms": f"{sum(known):.1f}" if len(known) == len(steps) else "",
    }
    columns = (
        "instances",
        "threads",
        "queue",
        "queue, ms",
        "batch",
        "one image, ms",
        "bytes in",
        "bytes out",
    )
    for heading in columns:
        table.add_column(heading, footer=sums.get(heading, ""), justify="right")
    for step in steps:
        table.add_row(
            step.model,
            str(step.instances),
            str(step.threads) if step.threads else "-",
            str(step.queue_size),
            "any" if step.queue_ms is None else f"{step.queue_ms:.1f}",
            str(step.batch),
            "not here" if step.service_ms is None else f"{step.service_ms:.1f}",
            "a file" if step.bytes_in is None else f"{step.bytes_in:,}",
            f"{step.bytes_out:,}",
        )
    return table


def _step_plan(config: pb.ModelConfig, service_ms: float | None, n_bytes: Mapping[str, int]) -> StepPlan:
    policy = config.dynamic_batching.default_queue_policy
    wait_us = policy.default_timeout_microseconds
    threads = config.parameters["intra_op_thread_count"].string_value
    inputs = [tensor.name for tensor in config.input if not tensor.optional or tensor.name in n_bytes]
    known = [n_bytes[name] for name in inputs if name in n_bytes]
    return StepPlan(
        model=config.name,
        instances=sum(group.count for group in config.instance_group),
        threads=int(threads or (0 if config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU else 1)),
        queue_size=policy.max_queue_size,
        queue_ms=wait_us / 1000 if wait_us else None,
        batch=max(config.dynamic_batching.preferred_batch_size, default=config.max_batch_size),
        service_ms=service_ms,
        bytes_in=sum(known) if len(known) == len(inputs) else None,
        bytes_out=sum(n_bytes[tensor.name] for tensor in config.output),
    )

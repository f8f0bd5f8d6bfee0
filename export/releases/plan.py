"""What would be published for a build, step by step: the table of `export plan`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table
from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.manifest import read_manifest
from export.releases.publish import TimeSteps, known_times, require_repository, stated_release, with_budget
from export.releases.remarks import serving_remarks
from export.releases.repository import parameters_of
from export.serving.backbones import Platform
from export.serving.model_files import spec_of
from export.serving.steps import verdict_specs
from export.tensors import ITEM_BYTES, image_bytes
from train.support.cores import usable_cores

COLUMNS = ("instances", "threads", "queue", "queue, ms", "batch", "one image, ms", "bytes in", "bytes out")


def plan_table(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    latency_budget_ms: float | None,
    time_steps: TimeSteps,
    images_per_s: float | None = None,
) -> Table:
    """A line for each step as `publish_category` would configure it with the same arguments; nothing is written.

    Raises:
        ExportError: there is no build, or its files were changed after export.
        PublishError: the folder is no model repository, or an image takes longer than its budget.
    """
    manifest = read_manifest(build)
    require_repository(repository)
    release = stated_release(build, manifest, repository, platform, TargetServer(), images_per_s)
    service_ms = time_steps(build, manifest, release.platform, known_times(release))
    if latency_budget_ms is not None:
        release = with_budget(release, latency_budget_ms, service_ms)
    configs = release.step_configs()
    waits_ms = [timeout_ms for config in configs.values() if (timeout_ms := _timeout_ms(config))]
    sums = {
        "queue, ms": f"{sum(waits_ms):.1f}" if waits_ms else "",
        "one image, ms": f"{sum(service_ms.values()):.1f}" if len(service_ms) == len(configs) else "",
    }
    budget = "no latency budget" if latency_budget_ms is None else f"latency budget {latency_budget_ms:g} ms"
    table = Table(title=f"{manifest.category}: {budget}, {usable_cores()} cores", show_footer=True)
    table.caption = (
        "\n".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in serving_remarks(release)) or None
    )
    table.add_column("step", footer="all")
    for heading in COLUMNS:
        table.add_column(heading, footer=sums.get(heading, ""), justify="right")
    n_bytes = _tensor_bytes(configs.values(), release.size)
    for step, config in configs.items():
        table.add_row(*_cells(config, service_ms.get(step), n_bytes))
    return table


def _tensor_bytes(configs: Iterable[pb.ModelConfig], image_size: int) -> dict[str, int]:
    """Bytes that one image takes in each tensor of fixed size, by tensor."""
    configured = (spec_of(tensor) for config in configs for tensor in (*config.input, *config.output))
    specs = [*configured, *verdict_specs(image_size)]  # the fusion's are of any size
    return {
        spec.name: image_bytes([spec]) for spec in specs if spec.type in ITEM_BYTES and -1 not in spec.shape
    }


def _timeout_ms(config: pb.ModelConfig) -> float:
    """How long a request may wait at a step; 0 is any time."""
    return float(config.dynamic_batching.default_queue_policy.default_timeout_microseconds) / 1000


def _threads(config: pb.ModelConfig) -> str:
    """Of a run on a CPU; on ONNX Runtime's own backend of the pool that all sessions of the server share."""
    stated = parameters_of(config).get("intra_op_thread_count")
    if config.backend == "onnxruntime":
        return f"pool of {stated}" if stated else "pool"
    return stated or "1"


def _cells(config: pb.ModelConfig, service_ms: float | None, n_bytes: Mapping[str, int]) -> tuple[str, ...]:
    """A step's name and its cells below COLUMNS."""
    on_gpu = config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    timeout_ms = _timeout_ms(config)
    inputs = [tensor.name for tensor in config.input if not tensor.optional or tensor.name in n_bytes]
    # The size of an image file is not known.
    bytes_in = sum(n_bytes[name] for name in inputs) if n_bytes.keys() >= set(inputs) else None
    return (
        config.name,
        str(sum(group.count for group in config.instance_group)),
        "-" if on_gpu else _threads(config),
        str(config.dynamic_batching.default_queue_policy.max_queue_size or "any"),
        f"{timeout_ms:.1f}" if timeout_ms else "any",
        str(max(config.dynamic_batching.preferred_batch_size, default=config.max_batch_size)),
        "not here" if service_ms is None else f"{service_ms:.1f}",
        "a file" if bytes_in is None else f"{bytes_in:,}",
        f"{sum(n_bytes[tensor.name] for tensor in config.output):,}",
    )

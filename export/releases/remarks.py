"""What is said of a release that was published, and what who starts a server has to know of it."""

from __future__ import annotations

from export.releases.record import Record
from export.releases.release import Release
from export.releases.switch import Served
from export.serving import throughput
from export.serving.backend_rules import start_options
from export.serving.native_pictures import largest_size, max_pixels
from export.serving.steps import verdict_specs
from export.tensors import distance_specs, image_bytes
from train.support.cores import usable_cores


def serving_remarks(release: Release) -> list[str]:
    """A sentence each, without a full stop."""
    platform, engine = release.platform, release.manifest.engines.get("student")
    wanted = throughput.chosen_batch(release.size, on_gpu=platform.on_gpu)
    largest = largest_size(release.manifest)
    too_small = platform.name == "tensorrt" and engine is not None and engine.options.max_batch < wanted
    own_size = [
        f"batches and requests hold one picture, at its own size of up to {max_pixels() / 1e6:g} megapixels"
    ]
    return (own_size if release.manifest.config.is_native else []) + throughput.remarks(
        fusion=sum(group.count for group in release.step_configs()["fusion"].instance_group),
        cores=usable_cores(),
        batch=platform.max_batch_size,
        image_bytes=image_bytes([*distance_specs(largest), *verdict_specs(largest)]),
        backbones=platform.concurrency(shared=False).instances,
        on_gpu=platform.on_gpu,
        engine_batch=platform.max_batch_size if too_small else None,
    )


def start_remark(release: Release) -> str | None:
    """What the server must be started with; None where nothing is out of the ordinary."""
    engine = release.engine("student")
    if engine is not None and engine.options.version_compatible:
        return "start Triton with --backend-config=tensorrt,version-compatible=true"
    if release.platform.one_pool:
        return start_options(release.target.pool_threads())
    return None


def not_live(record: Record, served: Served) -> str | None:
    """What makes a release live; None where it is."""
    live = served.pointers[record.category].number
    if live == record.number:
        return None
    return (
        f"release {live} stays live until `python -m deploy promote {record.number} --category {record.category}` "
        "makes this one so"
    )


def what_was_published(release: Release, record: Record, *, changed: bool) -> str:
    """The beginning of the line that says what was published, or that nothing was."""
    over = {
        name: f"{step.model} {step.version}"
        for name, step in record.steps.items()
        if name in ("teacher", "student", "foreground", "alignment")
    }
    masked = f", masked by {over['foreground']}" if "foreground" in over else ""
    masked += f", aligned by {over['alignment']}" if "alignment" in over else ""
    return (
        f"{'Published' if changed else 'Up to date'}: {' and '.join(release.ensembles)} over {over['teacher']} and "
        f"{over['student']}{masked}, platform {release.platform.name}, release {record.release_id}, number "
        f"{record.number}"
    )

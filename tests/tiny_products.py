"""Small categories over one teacher, for tests of how the server serves them, not of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.service_times import time_steps

NOTHING_STATED: Mapping[str, float] = MappingProxyType({})


def publish_tiny(
    build: Path,
    repository: Path,
    *,
    platform: Platform | None = None,
    latency_budget_ms: float | None = None,
    service_ms: Mapping[str, float] = NOTHING_STATED,
) -> str:
    """Publish a build as the command does, for the embedded server unless another platform is given."""
    return publish_category(
        build,
        repository=repository,
        platform=replace(platform or Platform(), max_batch_size=4),
        read_graph=read_onnx_file,
        latency_budget_ms=latency_budget_ms,
        time_steps=partial(time_steps, stated_ms=service_ms),
    )

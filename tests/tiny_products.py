"""Small categories over one teacher, for tests of how the server serves them, not of what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file


def publish_tiny(
    build: Path,
    repository: Path,
    *,
    platform: Platform | None = None,
) -> str:
    """Publish a build as the command does, for the embedded server unless another platform is given."""
    return publish_category(
        build,
        repository=repository,
        platform=replace(platform or Platform(), max_batch_size=4),
        read_graph=read_onnx_file,
    )

"""Small categories over one teacher, for tests of how the server serves them, not of what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.releases.publish import publish_category
from export.serving.steps import Platform


def publish_tiny(build: Path, repository: Path, **options: Any) -> str:
    """Publish a build for the embedded server."""
    return publish_category(build, repository=repository, platform=Platform(), max_batch_size=4, **options)

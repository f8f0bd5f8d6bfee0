"""Small categories over one teacher, for tests of how the server serves them, not of what it says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from export.manifest import FileRecord, Manifest, read_manifest
from export.model_configs import Platform
from export.publish import publish_category
from tests.conftest import CATEGORY
from tests.products import ROOT, change_release


def committed_repository(target: Path) -> Path:
    """A model repository with the committed backends alone."""
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations")
    for model in ("distance_fusion", "foreground", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, target / model, ignore=leave_out)
    return target


def renamed_build(build_dir: Path, target: Path, category: str, release_id: int) -> Path:
    """The tiny build as another category's, with a release id of its own."""
    build = Path(shutil.copytree(build_dir / CATEGORY, target / category))
    manifest = read_manifest(build)
    graph, calibration = build / "student.onnx", build / "calibration.json"
    change_release(graph, manifest.release_id, release_id)
    calibration.write_text(calibration.read_text().replace(str(manifest.release_id), str(release_id)))
    changed: Manifest = manifest.model_copy(
        update={
            "category": category,
            "release_id": release_id,
            "files": {**manifest.files, **{path.name: FileRecord.of(path) for path in (graph, calibration)}},
        }
    )
    (build / "manifest.json").write_text(changed.model_dump_json())
    return build


def publish_tiny(build: Path, repository: Path, **options: Any) -> str:
    """Publish a build for the embedded server."""
    return publish_category(build, repository=repository, platform=Platform(), max_batch_size=4, **options)

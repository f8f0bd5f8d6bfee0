"""A calibration that no verdict can rest on, or of another release, is not published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.errors import PublishError
from export.manifest import FileRecord, read_manifest
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_threshold": float("nan")}, r"cannot be used \(a calibration holds image_threshold nan"),
        ({"stage_weights": [0, 0, 0]}, r"cannot be used \(a calibration holds stage_weights"),
        ({"weights_id": 5}, r"is of weights 5 and images of 64 pixels; expected weights \d+ and 64 pixels"),
        ({"image_size": 256}, r"and images of 256 pixels; expected weights \d+ and 64 pixels"),
    ],
)
def test_a_calibration_that_cannot_judge_the_release_is_not_published(
    change: dict[str, Any], reason: str, tiny_build: Path, tmp_path: Path
) -> None:
    build = Path(shutil.copytree(tiny_build / CATEGORY, tmp_path / CATEGORY))
    path = build / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    manifest = read_manifest(tiny_build / CATEGORY)
    files = {**manifest.files, path.name: FileRecord.of(path)}  # as an export of before would have left it
    manifest.model_copy(update={"files": files}).write(build)
    repository = copy_backends(tmp_path / "models")
    with pytest.raises(PublishError, match=reason):
        publish_tiny(build, repository)
    assert not (repository / CATEGORY).exists()
    assert not (repository / ".releases").exists()

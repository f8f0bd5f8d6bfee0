"""A repository with the committed backends, and builds of two categories over one teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from export.records import FileRecord
from export.releases.publish import publish_category
from export.releases.repository import Repository, pinned_versions
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.conftest import CATEGORY
from tests.products import copy_as, copy_backends

TEACHER = "teacher_test_resnet_64"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_backends(tmp_path / "models")


@pytest.fixture
def pill(tiny_build: Path) -> Path:
    return tiny_build / CATEGORY


@pytest.fixture
def nut(pill: Path, tmp_path: Path) -> Path:
    """Another category over the same teacher."""
    return copy_as(pill, tmp_path / "builds" / "nut")


def publish(build: Path, repository: Path, **platform: Any) -> str:
    return publish_category(
        build,
        repository=repository,
        platform=Platform(**{"max_batch_size": 4, **platform}),
        read_graph=read_onnx_file,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def unlogged(files: dict[str, bytes]) -> dict[str, bytes]:
    """Contents without the audit log, to which every command adds."""
    return {name: content for name, content in files.items() if "/audit." not in name}


def teacher_of(repository: Path, category: str) -> int:
    config = Repository(repository).read_config(category)
    assert config is not None
    (version,) = pinned_versions(config, TEACHER)
    return version


def loaded(repository: Path, model: str) -> list[int]:
    config = Repository(repository).read_config(model)
    assert config is not None
    return list(config.version_policy.specific.versions)


def with_another_teacher(build: Path, folder: Path, remark: str) -> Path:
    """A build whose teacher has the same weights in a graph of other bytes, as another torch writes it."""
    copy_as(build, folder)
    model = onnx.load(folder / "teacher.onnx")
    model.doc_string = remark
    onnx.save(model, folder / "teacher.onnx")
    manifest = read_manifest_of(folder)
    manifest["files"]["teacher.onnx"] = FileRecord.of(folder / "teacher.onnx").model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def read_manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest

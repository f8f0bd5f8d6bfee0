"""A graph that would read other files, or has somebody's own operators, is neither published nor imported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from export.errors import ExportError, PublishError
from export.records import FileRecord
from export.releases.verbs.bundle import import_bundle
from tests.export.releases.conftest import publish
from tests.export.releases.test_bundles import line, repacked

__all__ = ["line"]  # a fixture
EXTERNAL, DOMAIN = (
    "keeps weights in other files; expected all of them inside",
    r"uses operator domains \['evil'\]",
)


def with_external_data(path: Path) -> None:
    """The first weight in the file of passwords."""
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/passwd")
    path.write_bytes(model.SerializeToString())


def with_own_operators(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].domain = "evil"
    path.write_bytes(model.SerializeToString())


CHANGES = [(with_external_data, EXTERNAL), (with_own_operators, DOMAIN)]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
@pytest.mark.parametrize("graph", ["teacher.onnx", "student.onnx"])
def test_a_foreign_graph_in_a_build_is_not_published(
    pill: Path, repository: Path, tmp_path: Path, graph: str, change: Any, reason: str
) -> None:
    """With a manifest that knows its hash: whoever could write the one could write the other."""
    build = Path(shutil.copytree(pill, tmp_path / "build"))
    change(build / graph)
    manifest = json.loads((build / "manifest.json").read_text())
    manifest["files"][graph] = FileRecord.of(build / graph).model_dump()
    (build / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(repository.rglob("*"))
    with pytest.raises(ExportError, match=rf"{graph} {reason}"):
        publish(build, repository)
    assert sorted(repository.rglob("*")) == before


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_a_foreign_graph_in_a_bundle_is_not_imported(
    pill: Path, repository: Path, line: Path, tmp_path: Path, change: Any, reason: str
) -> None:
    publish(pill, repository)
    foreign = Path(shutil.copy(pill / "student.onnx", tmp_path))
    change(foreign)

    def known(values: dict[str, Any]) -> None:
        values["steps"]["student"]["files"]["model.onnx"] = FileRecord.of(foreign).model_dump()

    path = repacked(
        repository,
        tmp_path / "odd.bundle",
        record=known,
        members=lambda of: of.update({"student/model.onnx": foreign}),
    )
    with pytest.raises(PublishError, match=rf"its student/model\.onnx {reason}.*nothing was imported"):
        import_bundle(line, path)
    assert not [path for path in line.rglob("*") if path.is_file() and path.parent.name != ".releases"]

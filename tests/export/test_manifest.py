"""A build is what its manifest says, and lies in the folder of that name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.errors import ExportError
from export.manifest import read_manifest
from tests.conftest import CATEGORY
from tests.products import copy_backends


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_backends(tmp_path / "models")


@pytest.mark.parametrize("command", ["publish", "plan", "verify", "bench", "engine"])
def test_a_build_is_not_renamed_with_its_folder(
    command: str, tiny_build: Path, repository: Path, tiny_runs: Path, tmp_path: Path
) -> None:
    """`build/a.b`, moved to `build/renamed`, was published as a.b."""
    build_dir = tmp_path / "build"
    shutil.copytree(tiny_build / CATEGORY, build_dir / "renamed")
    before = sorted(repository.rglob("*"))
    options = {
        "publish": ("--repository", repository),
        "plan": ("--repository", repository),
        "verify": ("--runs-dir", tiny_runs),
        "bench": ("--runs-dir", tiny_runs),
        "engine": (),
    }[command]
    if command in ("verify", "bench"):
        shutil.copytree(tiny_runs / CATEGORY, tmp_path / "runs" / "renamed")
        options = ("--runs-dir", tmp_path / "runs")
    arguments = [command, "--category", "renamed", "--build-dir", build_dir, *options]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert "renamed holds the build of category 'pill' in fp32; expected 'renamed' in fp32" in result.output
    assert len(result.output.splitlines()) == 1
    assert sorted(repository.rglob("*")) == before


def test_a_build_is_of_the_precision_of_its_folder(
    tiny_build: Path, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_build / CATEGORY, tmp_path / "build" / CATEGORY / "int8")
    options = ("--category", CATEGORY, "--build-dir", tmp_path / "build", "--repository", repository)
    arguments = ["publish", "--precision", "int8", *map(str, options)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "int8 holds the build of category 'pill' in fp32; expected 'pill' in int8" in result.output


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[]", r"used \(1 faults\); export again \(first fault: Input should be an object\)"),
        (b"{", r"used \(1 faults\); export again \(first fault: Invalid JSON: .*\)"),
        (b'{"name": "other"}', r"used \(\d+ faults\); export again \(first fault: format: Field required\)"),
        (b"\xff\xfe", r"read \(.*invalid start byte\); export again"),
    ],
)
def test_a_manifest_from_elsewhere_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ExportError, match=rf"manifest\.json cannot be {sentence}") as refused:
        read_manifest(tmp_path)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"format": "astmfr-build-9"},
            "has format 'astmfr-build-9'; expected 'astmfr-build-1'; export again",
        ),
        ({"files": {}}, "it lists the files ; expected calibration.json, student.onnx, teacher.onnx"),
    ],
)
def test_a_manifest_says_what_it_is_of(
    tiny_build: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    manifest = json.loads((tiny_build / CATEGORY / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ExportError, match=sentence):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "name"), [("teacher", "../../x"), ("student", "/etc/x"), ("teacher", "x\x1b[1m")]
)
def test_a_backbone_that_leads_elsewhere_is_refused(
    tiny_build: Path, tmp_path: Path, field: str, name: str
) -> None:
    """The teacher's model is named after it, and a folder after the model."""
    manifest = json.loads((tiny_build / CATEGORY / "manifest.json").read_text())
    manifest["config"][field] = name
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="is no safe name of a file or folder; expected letters") as refused:
        read_manifest(tmp_path)
    assert refused.value.message.isprintable()

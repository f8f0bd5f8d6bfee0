"""A build is what its manifest says, and lies in the folder of that name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.__main__ import main
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

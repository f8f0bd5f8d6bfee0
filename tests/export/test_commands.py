"""The commands of the export stage as a user meets them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export.__main__ import main
from tests.conftest import CATEGORY
from tests.products import ROOT


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_shows_defaults() -> None:
    said = " ".join(run("publish", "--help").output.split())
    assert "[default: 8; 1<=x<=128]" in said
    assert "[default: model_repository]" in said
    assert {"onnx", "publish"} <= set(run("--help").output.split())


def test_onnx_then_publish(tiny_runs: Path, tmp_path: Path) -> None:
    for model in ("distance_fusion", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, tmp_path / "models" / model)
    options = ("--category", CATEGORY, "--build-dir", tmp_path / "build")
    first = run("onnx", *options, "--runs-dir", tiny_runs)
    assert first.exit_code == 0, first.output
    assert "Batch 8: largest difference from PyTorch" in first.output
    assert "Exported:" in first.output
    assert "Up to date:" in run("onnx", *options, "--runs-dir", tiny_runs).output
    published = run("publish", *options, "--repository", tmp_path / "models")
    assert published.exit_code == 0, published.output
    assert "Published: pill and pill_encoded" in published.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("onnx", "--category", "screw"), "does not exist; make it with `python -m train fit`"),
        (("publish", "--category", "screw"), "does not exist; make it with `python -m export onnx`"),
    ],
)
def test_what_is_not_there_is_told_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

"""A second run with nothing changed says so at once: it does not load torch, which takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import CATEGORY
from tests.no_torch import run_without_torch
from train.data.category import CategoryData
from train.runs import evaluate_category
from train.support.devices import Runtime


def test_a_second_run_needs_no_torch(
    tiny_data: CategoryData, tiny_runs: Path, tiny_build: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(tiny_runs / CATEGORY, tmp_path / CATEGORY)
    evaluate_category(tiny_data, run_dir=run_dir, runtime=Runtime("cpu", strict=True))
    category, runs = ("--category", CATEGORY), ("--runs-dir", tmp_path)
    data = ("--data", tiny_data.root)
    fitted = run_without_torch("train", "fit", *category, *data, *runs, "--as-before")
    evaluated = run_without_torch("train", "evaluate", *category, *data, *runs)
    built = run_without_torch("export", "onnx", *category, *runs, "--build-dir", tiny_build)
    assert fitted == f"Up to date: {run_dir / 'checkpoint.safetensors'}\n"
    assert evaluated == f"Up to date: {run_dir / 'report.html'}\n"
    assert built == f"Up to date: {tiny_build / CATEGORY}\n"

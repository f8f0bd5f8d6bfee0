"""Thresholds for another foreground than the checkpoint's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import CATEGORY
from train.checkpoint.header import read_release_id
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, read_category
from train.errors import DataError
from train.evaluation.evaluate import evaluate
from train.runs import evaluate_category
from train.support.devices import Runtime

pytestmark = pytest.mark.usefixtures("without_pictures")

CPU = torch.device("cpu")


def test_evaluating_with_another_foreground_fits_thresholds_of_its_own(
    tiny_runs: Path,
    masked: Checkpoint,
    blotted: CategoryData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As if it had been trained so: only the foreground differs between the two runs."""
    run_dir = tmp_path / CATEGORY
    shutil.copytree(tiny_runs / CATEGORY, run_dir)
    checkpoint = run_dir / "checkpoint.safetensors"
    before = checkpoint.read_bytes()

    def run(foreground: str | None) -> str:
        return evaluate_category(
            blotted, run_dir=run_dir, runtime=Runtime("cpu", strict=True), foreground=foreground
        )

    said = run("threshold")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (
        f"image AUROC {metrics['image_auroc']:.4f} with foreground threshold and "
        f"{metrics['image_auroc_without_foreground']:.4f} without"
    ) in said
    assert "are for foreground none; those for threshold are fitted" in " ".join(
        capsys.readouterr().err.split()
    )
    trained_so = evaluate(masked, blotted, runtime=Runtime("cpu", strict=True))
    assert trained_so is not None
    for name in ("threshold", "image_auroc", "image_auroc_without_foreground", "false_reject_rate"):
        assert metrics[name] == pytest.approx(trained_so.metrics[name]), name
    assert checkpoint.read_bytes() == before
    assert metrics["release_id"] == read_release_id(checkpoint)
    # Of one release id, but not what is served: the client tells the two apart.
    assert (metrics["foreground"], metrics["foreground_of_release"]) == ("threshold", "none")

    assert run("threshold").startswith("Up to date")
    assert "without" not in run(None)  # the checkpoint's own way is another evaluation
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["foreground"], metrics["foreground_of_release"]) == ("none", "none")
    assert run("none").startswith("Up to date")


def test_thresholds_of_other_images_cannot_be_fitted(
    tiny_runs: Path, blotted: CategoryData, tmp_path: Path
) -> None:
    root = tmp_path / "other" / CATEGORY
    shutil.copytree(blotted.root, root)
    (root / "train" / "good" / "000.png").unlink()
    data = read_category(root, dataset="folder", category=CATEGORY)
    shutil.copytree(tiny_runs / CATEGORY, tmp_path / CATEGORY)
    with pytest.raises(DataError, match=r"Thresholds for --foreground threshold cannot be fitted: .*--data"):
        evaluate_category(
            data, run_dir=tmp_path / CATEGORY, runtime=Runtime("cpu", strict=True), foreground="threshold"
        )
    assert not (tmp_path / CATEGORY / "metrics.json").exists()

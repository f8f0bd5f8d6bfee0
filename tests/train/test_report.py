"""The page of an evaluation: figures, pictures, and the label of synthetic data."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CATEGORY
from train.checkpoint import Checkpoint, load_checkpoint
from train.data import CategoryData
from train.evaluate import Evaluation, evaluate
from train.report import EXAMPLES_PER_KIND, evaluate_category, galleries, render_report, summary

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def evaluation(checkpoint: Checkpoint, tiny_data: CategoryData) -> Evaluation:
    found = evaluate(checkpoint, tiny_data, device=CPU, strict=True)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, checkpoint: Checkpoint) -> str:
    return render_report(evaluation, checkpoint)


@pytest.fixture
def run_dir(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A run that has been trained and not evaluated."""
    run = tmp_path / "runs" / CATEGORY
    run.mkdir(parents=True)
    (run / "checkpoint.safetensors").symlink_to(tiny_checkpoint)
    return run


def run(data: CategoryData, run_dir: Path, *, force: bool = False) -> str:
    return evaluate_category(data, run_dir=run_dir, device=CPU, strict=True, force=force)


def rejecting(evaluation: Evaluation, *, good: bool, defective: bool) -> Evaluation:
    """The same scores, the images of each class all rejected or all passed."""
    labels = np.where(evaluation.labels, defective, good)[:, None]
    return replace(evaluation, verdict=replace(evaluation.verdict, pred_label=labels))


def test_page_is_one_file_with_pictures_inside(page: str) -> None:
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(sources) > 2
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_page_holds_figures_and_how_it_was_made(
    page: str, evaluation: Evaluation, checkpoint: Checkpoint
) -> None:
    metrics = evaluation.metrics
    for key in ("image_auroc", "pixel_auroc", "pro", "threshold"):
        assert f"{metrics[key]:.4f}" in page
    for value in (
        checkpoint.config.teacher,
        checkpoint.provenance.data_fingerprint,
        str(checkpoint.release_id),
    ):
        assert value in page


def test_page_of_synthetic_data_says_so(page: str, evaluation: Evaluation, checkpoint: Checkpoint) -> None:
    assert "Synthetic data" in page
    photographed = replace(evaluation, metrics={**evaluation.metrics, "synthetic": False})
    real = replace(checkpoint, provenance=checkpoint.provenance.model_copy(update={"synthetic": False}))
    assert "Synthetic data" not in render_report(photographed, real)


@pytest.mark.parametrize(
    ("good", "defective", "counts"),
    [
        (False, False, {"Worst escapes": 7, "Worst false rejects": 0, "Clearest catches": 0, "Best of the good": 4}),
        (True, True, {"Worst escapes": 0, "Worst false rejects": 4, "Clearest catches": 7, "Best of the good": 0}),
    ],
)  # fmt: skip
def test_every_image_is_in_the_gallery_it_belongs_to(
    evaluation: Evaluation, good: bool, defective: bool, counts: dict[str, int]
) -> None:
    shown = galleries(rejecting(evaluation, good=good, defective=defective))
    assert {gallery.title.split(" (")[0].split(":")[0]: gallery.title.split("(")[1] for gallery in shown} == {
        title: f"{count})" for title, count in counts.items()
    }
    assert [len(gallery.pictures) for gallery in shown] == [
        min(count, EXAMPLES_PER_KIND) for count in counts.values()
    ]


def test_the_worst_come_first(evaluation: Evaluation) -> None:
    escapes, _, _, passed = galleries(rejecting(evaluation, good=False, defective=False))
    for gallery in (escapes, passed):
        scores = [float(caption.rpartition(": ")[2]) for _, caption in gallery.pictures]
        assert scores == sorted(scores)


def test_summary_leaves_out_what_cannot_be_had(evaluation: Evaluation) -> None:
    metrics = {**evaluation.metrics, "image_auroc": 0.93755, "pixel_auroc": None, "pro": None}
    assert summary(metrics) == "image AUROC 0.9375, 11 images"


def test_nothing_is_evaluated_twice(tiny_data: CategoryData, run_dir: Path) -> None:
    assert run(tiny_data, run_dir).startswith("Evaluated: image AUROC ")
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoint.safetensors",
        "metrics.json",
        "report.html",
    ]
    assert run(tiny_data, run_dir) == f"Up to date: {run_dir / 'report.html'}"
    assert run(tiny_data, run_dir, force=True).startswith("Evaluated")
    (run_dir / "report.html").unlink()
    assert run(tiny_data, run_dir).startswith("Evaluated")
    assert (run_dir / "report.html").is_file()


def test_a_plain_folder_has_nothing_to_evaluate(tiny_data: CategoryData, run_dir: Path) -> None:
    said = run(replace(tiny_data, test=()), run_dir)
    assert said == f"No test images in {tiny_data.root / 'test'}: nothing to evaluate."
    assert [path.name for path in run_dir.iterdir()] == ["checkpoint.safetensors"]

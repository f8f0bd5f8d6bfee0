"""The page of an evaluation: figures, pictures, and the label of synthetic data."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_repository.distance_fusion.map_fusion import Verdict
from tests.conftest import CATEGORY
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData
from train.evaluation.breakdown import SIZES, JudgedSet, measures_of
from train.evaluation.evaluate import Evaluation
from train.evaluation.figures import panels, running_mean, training_figure
from train.evaluation.report import EXAMPLES_PER_KIND, galleries, render_report, summary
from train.fitting.losses import Losses
from train.runs import evaluate_category
from train.support.devices import Runtime

CPU = torch.device("cpu")


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
    return evaluate_category(data, run_dir=run_dir, runtime=Runtime("cpu", strict=True), force=force)


def rejecting(evaluation: Evaluation, *, good: bool, defective: bool) -> Evaluation:
    """The same scores, the images of each class all rejected or all passed."""
    judged = evaluation.judged
    labels = np.where(judged.labels, defective, good)[:, None]
    return replace(evaluation, judged=replace(judged, verdict=replace(judged.verdict, pred_label=labels)))


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


def test_page_holds_the_verdict_with_counts_and_intervals_and_the_tables(
    page: str, evaluation: Evaluation
) -> None:
    metrics, text = evaluation.metrics, re.sub(r"<.*?>", " ", page)
    low, high = metrics["escape_interval"]
    assert (
        f"{metrics['n_escapes']} of 7 defective images; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
        in text
    )
    low, high = metrics["false_reject_interval"]
    assert f"of 4 good images; 95 % interval {100 * low:.1f} to {100 * high:.1f} %" in text
    assert len(metrics["by_defect"]) == 7
    for name, part in (
        metrics["by_defect"] | {SIZES[name]: part for name, part in metrics["by_size"].items()}
    ).items():
        row = re.search(rf"<td>{name}</td>(.*?)</tr>", page, re.DOTALL)
        assert row is not None
        assert f"<td>{part['n_images']}</td>" in row[1]
        assert f"<td>{part['pro']:.4f}</td>" in row[1]
    assert metrics["test_fingerprint"] in page


def test_page_says_what_cannot_be_had_and_shows_the_rest(
    evaluation: Evaluation, checkpoint: Checkpoint
) -> None:
    bare = tuple(replace(image, mask_path=None) for image in evaluation.judged.test)
    judged = JudgedSet(bare, evaluation.judged.verdict, masks=None)
    unmasked = replace(evaluation, metrics={**evaluation.metrics, **measures_of(judged)}, judged=judged)
    page = render_report(unmasked, checkpoint)
    assert "There are no masks: pixel measures and defect sizes cannot be computed." in page
    assert page.count("not available") == 3
    assert 'alt="PRO curve"' not in page
    assert "By defect size" not in page
    assert "By defect kind" in page


def test_page_of_one_class_is_a_page(evaluation: Evaluation, checkpoint: Checkpoint) -> None:
    good = np.flatnonzero(~evaluation.judged.labels)
    verdict = Verdict(**{name: value[good] for name, value in vars(evaluation.judged.verdict).items()})
    judged = JudgedSet(tuple(evaluation.judged.test[index] for index in good), verdict, masks=None)
    measures = {**evaluation.metrics, **measures_of(judged)}
    only_good = Evaluation(measures, judged, evaluation.pixels[good])
    page = render_report(only_good, checkpoint)
    assert "The test set has no defective images" in page
    assert "no defective images<" in page.replace("\n", "")
    assert "By defect kind" not in page


def test_training_curves_are_shown(evaluation: Evaluation, checkpoint: Checkpoint) -> None:
    steps = np.arange(30)
    train_loss, rate = 3.0 - steps / 16, np.full(30, 1e-3)
    validation_loss = np.where(steps % 10 == 9, 2.5, np.nan)
    losses = Losses(step=steps, train_loss=train_loss, learning_rate=rate, validation_loss=validation_loss)
    shown, below = training_figure(losses).axes
    assert [axes.get_xlabel() for axes in (shown, below)] == ["", "step"]
    noisy, smooth, validated = shown.lines
    np.testing.assert_array_equal(noisy.get_xydata(), np.column_stack([steps, train_loss]))
    np.testing.assert_array_equal(smooth.get_ydata(), running_mean(train_loss))
    np.testing.assert_array_equal(validated.get_xydata(), [[9, 2.5], [19, 2.5], [29, 2.5]])
    np.testing.assert_array_equal(below.lines[0].get_ydata(), rate)
    never_validated = replace(losses, validation_loss=np.full(30, np.nan))
    assert len(training_figure(never_validated).axes[0].lines) == 2
    page = render_report(evaluation, checkpoint, losses=losses)
    assert 'alt="training curves"' in page
    assert "No training curves" not in page


def test_without_losses_the_page_says_so(page: str) -> None:
    assert "No training curves: the run's folder has no losses.csv of this checkpoint." in page
    assert 'alt="training curves"' not in page


def test_the_report_of_a_real_run_shows_its_losses(
    tiny_runs: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(tiny_runs / CATEGORY, tmp_path / CATEGORY)
    run(tiny_data, run_dir, force=True)
    assert 'alt="training curves"' in (run_dir / "report.html").read_text()


def test_running_mean_by_hand() -> None:
    assert running_mean(np.array([1.0, 2.0, 6.0, 3.0]), 3).tolist() == [1.5, 3.0, pytest.approx(11 / 3), 4.5]
    assert running_mean(np.array([1.0, 3.0]), 10).tolist() == [1.0, 2.0]


def test_the_mask_stands_beside_the_image_where_there_is_one(evaluation: Evaluation) -> None:
    image, anomaly_map = evaluation.pixels[0], evaluation.judged.verdict.anomaly_map[0]
    mask = np.zeros(anomaly_map.shape, bool)
    mask[4:9, 4:9] = True
    for given, titles in (
        (mask, ["image", "mask", "anomaly map", "overlay"]),
        (None, ["image", "anomaly map", "overlay"]),
    ):
        figure = panels(image, anomaly_map, given, usual=0.0, threshold=1.0)
        assert [axes.get_title() for axes in figure.axes] == titles
        assert figure.axes[0].images[0].get_array().shape == image.shape


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_whole_page(page: str, tmp_path: Path) -> None:
    """Every picture is decoded and nothing is wider than a laptop's window."""
    probe = (
        "<script>document.title = [document.documentElement.scrollWidth, "
        "[...document.images].filter(image => image.naturalWidth > 0).length].join();</script>"
    )
    (tmp_path / "report.html").write_text(page.replace("</body>", probe + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [
        "--window-size=1200,800",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"file://{tmp_path}/report.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(\d+),(\d+)</title>", done.stdout)
    assert title is not None
    assert int(title[1]) <= 1200
    assert int(title[2]) == page.count("<img ")


def test_page_of_synthetic_data_says_so(page: str, evaluation: Evaluation, checkpoint: Checkpoint) -> None:
    assert "Synthetic data" in page
    photos = {**evaluation.metrics["judged_on"], "synthetic": False}
    photographed = replace(evaluation, metrics={**evaluation.metrics, "judged_on": photos})
    assert "the parts that it was trained on were rendered" in render_report(photographed, checkpoint)
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

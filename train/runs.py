"""runs/<category>/: a checkpoint, its measures and their report, each made unless it is up to date.

Importing torch takes seconds, so it is imported only where something has to be fitted or evaluated: a `make export`
that finds everything up to date never imports it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from train.checkpoint.header import read_header, read_release_id
from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import CheckpointError, DataError
from train.support.devices import Runtime
from train.support.files import read_json, write_json, write_text
from train.support.progress import console


def fit_category(
    data: CategoryData,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    run_dir: Path,
    runtime: Runtime,
    force: bool = False,
) -> bool:
    """Train a category, unless its checkpoint was trained on these images with the options that were asked for.

    Args:
        data: the category's images.
        preset: None means that of an existing checkpoint, or `edge`.
        overrides: fields of `FitConfig` that were asked for; an existing checkpoint may differ in all others.
        run_dir: takes checkpoint.safetensors and tensorboard/.
        runtime: where and how to train.
        force: train even when the checkpoint is up to date.

    Returns:
        Whether it trained; False where the checkpoint was up to date.

    Raises:
        UserError: bad options, images or weights, or an existing checkpoint that cannot be read, which is not
            overwritten.
    """
    checkpoint_path = run_dir / "checkpoint.safetensors"
    # First of all: wrong options are an error even where the checkpoint is up to date.
    config = fit_config(preset or "edge", overrides)
    asked = {*overrides, *(["preset"] if preset else [])}
    if not force and checkpoint_is_up_to_date(checkpoint_path, data=data, config=config, asked=asked):
        return False
    from train.fitting.fit import fit

    fit(data, config=config, checkpoint_path=checkpoint_path, runtime=runtime)
    return True


def data_fingerprints(runs_dir: Path) -> dict[str, str]:
    """Which images each category was trained on, by its name; checkpoints that cannot be read are left out."""
    fingerprints = {}
    for path in sorted(runs_dir.glob("*/checkpoint.safetensors")):
        with suppress(CheckpointError):
            fingerprints[path.parent.name] = read_header(path).provenance.data_fingerprint
    return fingerprints


def checkpoint_is_up_to_date(
    checkpoint_path: Path, *, data: CategoryData, config: FitConfig, asked: Collection[str]
) -> bool:
    """Whether a checkpoint was trained on these very images, with `config`'s values of the fields asked for.

    Raises:
        CheckpointError: the file cannot be read. It is not taken for out of date, for it would be overwritten.
    """
    if not checkpoint_path.exists():
        return False
    header = read_header(checkpoint_path)
    same_options = all(getattr(header.config, name) == getattr(config, name) for name in asked)
    return same_options and header.provenance.data_fingerprint == data.fingerprint()


def evaluate_category(
    data: CategoryData,
    *,
    run_dir: Path,
    runtime: Runtime,
    foreground: str | None = None,
    force: bool = False,
) -> str:
    """Evaluate a category's checkpoint and write metrics.json and report.html, unless they are up to date.

    Args:
        data: holds the test set.
        run_dir: holds checkpoint.safetensors, takes metrics.json and report.html.
        runtime: where and how to evaluate.
        foreground: how the background is removed; None means the checkpoint's own way. Another one gets thresholds
            of its own, see `train.calibration.recalibration`.
        force: evaluate even when up to date.

    Returns:
        One line with the measures, or why nothing was evaluated.

    Raises:
        UserError: no checkpoint, or no readable test image.
    """
    checkpoint_path, report_path = run_dir / "checkpoint.safetensors", run_dir / "report.html"
    foreground = foreground or read_header(checkpoint_path).config.foreground
    metrics_path = run_dir / "metrics.json"
    up_to_date = report_path.is_file() and metrics_are_up_to_date(
        metrics_path, checkpoint_path=checkpoint_path, data=data, foreground=foreground
    )
    if up_to_date and not force:
        return f"Up to date: {report_path}"
    from train.calibration.foreground import load_foreground
    from train.calibration.recalibration import recalibrate
    from train.checkpoint.tensors import load_checkpoint
    from train.evaluation.evaluate import evaluate
    from train.evaluation.report import render_report, summary
    from train.fitting.losses import LOSSES_FILE, read_losses

    checkpoint = load_checkpoint(checkpoint_path)
    finder = load_foreground(foreground, weights_dir=runtime.weights_dir)
    if foreground != checkpoint.config.foreground:
        checkpoint = recalibrate(checkpoint, finder, data, runtime=runtime)
    evaluation = evaluate(checkpoint, data, foreground=finder, runtime=runtime)
    if evaluation is None:
        return f"No test images in {data.root / 'test'}: nothing to evaluate."
    for sentence in evaluation.metrics["unavailable"]:
        console.print(sentence, style="yellow", markup=False)
    write_text(report_path, render_report(evaluation, checkpoint, read_losses(run_dir / LOSSES_FILE)))
    write_json(metrics_path, evaluation.metrics)
    return f"Evaluated: {summary(evaluation.metrics)}; {report_path}"


def fit_and_evaluate(
    data: CategoryData, *, config: FitConfig, run_dir: Path, runtime: Runtime
) -> dict[str, Any]:
    """Train a category with this very configuration and evaluate it; what is up to date is not done again.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: see `fit_category` and `evaluate_category`, or there are no test images.
    """
    if not data.test:
        raise DataError(f"{data.root} has no test images to measure with; put them into test/<defect>.")
    # Every field counts as asked for, so that no older checkpoint with other options passes as up to date.
    fit_category(data, preset=config.preset, overrides=config.model_dump(), run_dir=run_dir, runtime=runtime)
    outcome = evaluate_category(data, run_dir=run_dir, runtime=runtime)
    console.print(outcome, markup=False)
    return dict(read_json(run_dir / "metrics.json"))


def metrics_are_up_to_date(
    metrics_path: Path, *, checkpoint_path: Path, data: CategoryData, foreground: str = "none"
) -> bool:
    """Whether metrics.json is of this checkpoint, test set and foreground, and has every measure of today's code.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    metrics = read_json(metrics_path)
    if metrics is None:
        return False
    measured = tuple(metrics.get(name) for name in ("foreground", "release_id", "test_fingerprint"))
    asked = (foreground, read_release_id(checkpoint_path), data.test_fingerprint())
    return measured == asked and "unavailable" in metrics

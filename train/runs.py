"""runs/<category>/: a checkpoint, its measures and their report, each made unless it is up to date.

Torch is loaded for work alone: it takes seconds, and a second `make export` has none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.checkpoint.header import read_header, read_release_id
from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import CheckpointError
from train.support.devices import choose_device

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        checkpoint_path: where the checkpoint lies.
        trained: False when it was up to date and nothing was done.
    """

    checkpoint_path: Path
    trained: bool


def fit_category(
    data: CategoryData,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    run_dir: Path,
    weights_dir: Path | None,
    device: str | torch.device,
    strict: bool,
    force: bool,
) -> FitResult:
    """Train a category unless its checkpoint already answers to what is asked.

    Args:
        data: the category's images.
        preset: None means that of an existing checkpoint, or `edge`.
        overrides: fields of `FitConfig` that were asked for; all others may be the checkpoint's.
        run_dir: takes checkpoint.safetensors and tensorboard/.
        weights_dir: pretrained weights, see `train.method.pretrained_weights.load_weights`.
        device: where to train; see `train.support.devices.choose_device`.
        strict: a broken image stops the run.
        force: train even when the checkpoint is up to date.

    Raises:
        UserError: bad options, images or weights, or an existing checkpoint that is damaged or foreign; it stays
            as it is.
    """
    checkpoint_path = run_dir / "checkpoint.safetensors"
    # Faulty options are told even when nothing is to be done.
    config = fit_config(preset or "edge", overrides)
    asked = {*overrides, *(["preset"] if preset else [])}
    if not force and checkpoint_is_up_to_date(checkpoint_path, data=data, config=config, asked=asked):
        return FitResult(checkpoint_path, trained=False)
    from train.fitting.fit import fit

    fit(
        data,
        config=config,
        checkpoint_path=checkpoint_path,
        weights_dir=weights_dir,
        device=choose_device(device),
        strict=strict,
    )
    return FitResult(checkpoint_path, trained=True)


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
        CheckpointError: a file that is damaged or foreign; it may be worth more than a new one.
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
    device: str | torch.device,
    strict: bool,
    force: bool,
    foreground: str | None = None,
    weights_dir: Path | None = None,
) -> str:
    """Evaluate a category's checkpoint and write metrics.json and report.html, unless they are up to date.

    Args:
        data: holds the test set.
        run_dir: holds checkpoint.safetensors, takes the rest.
        device: where to compute; see `train.support.devices.choose_device`.
        strict: a broken image stops the run.
        force: evaluate even when up to date.
        foreground: how the background is removed; None means the checkpoint's own way. Another one gets thresholds
            of its own, see `train.calibration.recalibration`.
        weights_dir: where SAM's weights may lie.

    Returns:
        One line that says what came out.

    Raises:
        UserError: no checkpoint, or no readable test image.
    """
    checkpoint_path, report_path = run_dir / "checkpoint.safetensors", run_dir / "report.html"
    foreground = foreground or read_header(checkpoint_path).config.foreground
    up_to_date = (
        metrics_are_up_to_date(
            run_dir / "metrics.json", checkpoint_path=checkpoint_path, data=data, foreground=foreground
        )
        and report_path.is_file()
    )
    if up_to_date and not force:
        return f"Up to date: {report_path}"
    from train.evaluation.report import report_category

    return report_category(
        data,
        run_dir=run_dir,
        device=choose_device(device),
        strict=strict,
        foreground=foreground,
        weights_dir=weights_dir,
    )


def metrics_are_up_to_date(
    metrics_path: Path, *, checkpoint_path: Path, data: CategoryData, foreground: str = "none"
) -> bool:
    """Whether metrics.json is of this very checkpoint, test set and foreground, and holds all that is measured today.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    try:
        metrics = json.loads(metrics_path.read_text())
    except (FileNotFoundError, ValueError):
        return False
    found = tuple(metrics.get(name) for name in ("foreground", "release_id", "test_fingerprint"))
    expected = (foreground, read_release_id(checkpoint_path), data.test_fingerprint())
    return found == expected and "unavailable" in metrics

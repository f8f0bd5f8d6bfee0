"""The paper's ablations on any data set: train and evaluate each row, unless it was done before (Section 4.3)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import ConfigError, UserError
from train.method.student import student_without_weights
from train.runs import fit_and_evaluate
from train.studies.ablation.rows import Ablation, AblationRow, run_name
from train.studies.paper_figures import mean
from train.support.files import write_text
from train.support.progress import console
from train.support.tables import percent


@dataclass(frozen=True)
class RunSettings:
    """What all runs of an ablation share.

    Attributes:
        base: the configuration that rows change.
        seeds: one run of each.
        runs_dir: runs are kept under `<category>/ablations/`.
        weights_dir: see `train.method.pretrained_weights.load_weights`.
        device: where to train.
        strict: a broken image stops a run.
        keep_checkpoints: whether a checkpoint stays once it was evaluated; the paper's pair needs 0.2 GB a run.
    """

    base: FitConfig
    seeds: tuple[int, ...]
    runs_dir: Path
    weights_dir: Path | None
    device: torch.device
    strict: bool
    keep_checkpoints: bool


@dataclass(frozen=True)
class RunResult:
    """One run: its measures, or in one sentence why it failed."""

    category: str
    seed: int
    metrics: Mapping[str, Any]
    fault: str | None = None

    def percent(self, measure: str) -> float | None:
        """A measure of metrics.json in percent."""
        return percent(self.metrics.get(measure))


@dataclass(frozen=True)
class RowResult:
    """A row and its runs.

    Attributes:
        row: the row of the paper's table.
        runs: one for each category and seed; none where the row is impossible.
        impossible: why these networks cannot be built so.
    """

    row: AblationRow
    runs: tuple[RunResult, ...]
    impossible: str | None = None

    @property
    def fault(self) -> str | None:
        """Why the row has no figures; None where it has."""
        if self.impossible is not None:
            return f"not possible: {self.impossible}"
        failed = [run for run in self.runs if run.fault is not None]
        if not failed:
            return None
        return f"{len(failed)} of {len(self.runs)} runs failed, {failed[0].category}: {failed[0].fault}"

    def mean_and_spread(self, measure: str) -> tuple[float | None, float | None]:
        """Mean over the seeds of the average over the categories, percent, and its standard deviation.

        None for a measure that one category lacks: the rows must be of the same images. The deviation is the
        sample's, None for one seed.
        """
        if self.fault is not None:
            return None, None
        by_seed: dict[int, list[float | None]] = {}
        for run in self.runs:
            by_seed.setdefault(run.seed, []).append(run.percent(measure))
        averages = [None if None in values else mean(values) for values in by_seed.values()]
        known = [value for value in averages if value is not None]
        if not known or len(known) < len(averages):
            return None, None
        return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def run_ablations(
    ablations: Sequence[Ablation], data: Sequence[CategoryData], *, settings: RunSettings
) -> dict[str, list[RowResult]]:
    """Run every row of the tables on every category and seed; runs that were done before are read.

    Returns:
        The rows' results by the table's name.

    Raises:
        ConfigError: a network that timm does not have.
    """
    done: dict[tuple[str, FitConfig], RunResult] = {}
    results: dict[str, list[RowResult]] = {}
    for ablation in ablations:
        results[ablation.name] = []
        for number, row in enumerate(ablation.rows, start=1):
            console.print(f"{ablation.title}, row {number} of {len(ablation.rows)}", style="bold")
            results[ablation.name].append(_run_row(row, data, settings, done))
    return results


def _run_row(
    row: AblationRow,
    data: Sequence[CategoryData],
    settings: RunSettings,
    done: dict[tuple[str, FitConfig], RunResult],
) -> RowResult:
    fields = {**settings.base.model_dump(), **row.overrides}
    config = fit_config(settings.base.preset, fields | {"seed": settings.seeds[0]})
    impossible = reason_against(config)
    if impossible is not None:
        return RowResult(row, (), impossible)
    runs = []
    for product in data:
        for seed in settings.seeds:
            seeded = config.model_copy(update={"seed": seed})
            key = (product.category, seeded)
            if key not in done:
                done[key] = _run(product, config=seeded, settings=settings)
            runs.append(done[key])
    return RowResult(row, tuple(runs))


def reason_against(config: FitConfig) -> str | None:
    """Why a pair cannot be built, or None: a stage without a block needs equal channels in both networks.

    Raises:
        ConfigError: the pair cannot be built with blocks either: timm does not know a name, for example.
    """
    try:
        student_without_weights(config)
    except ConfigError as error:
        student_without_weights(config.model_copy(update={"generation_stages": (1, 2, 3)}))
        return error.message
    return None


def _run(data: CategoryData, *, config: FitConfig, settings: RunSettings) -> RunResult:
    run_dir = settings.runs_dir / data.category / "ablations" / run_name(config) / f"seed-{config.seed}"
    try:
        metrics = measured_run(data, config=config, run_dir=run_dir, settings=settings)
    except UserError as error:
        console.print(f"{data.category}: {error.message}", style="red", markup=False)
        return RunResult(data.category, config.seed, {}, error.message)
    return RunResult(data.category, config.seed, metrics)


def measured_run(
    data: CategoryData, *, config: FitConfig, run_dir: Path, settings: RunSettings
) -> dict[str, Any]:
    """Measures of a run: read from run.json where that is of these options and images, else trained and evaluated.

    Raises:
        UserError: see `train.runs.fit_and_evaluate`.
    """
    result_path = run_dir / "run.json"
    options = config.model_dump(mode="json")
    earlier = _read(result_path)
    fingerprints = (data.fingerprint(), data.test_fingerprint())
    if earlier.get("config") == options and _fingerprints(earlier) == fingerprints:
        return dict(earlier["metrics"])
    metrics = fit_and_evaluate(
        data,
        config=config,
        run_dir=run_dir,
        weights_dir=settings.weights_dir,
        device=settings.device,
        strict=settings.strict,
    )
    write_text(result_path, json.dumps({"config": options, "metrics": metrics}, indent=2) + "\n")
    if not settings.keep_checkpoints:
        (run_dir / "checkpoint.safetensors").unlink()
    return metrics


def _read(path: Path) -> dict[str, Any]:
    """A run's result; empty where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _fingerprints(result: Mapping[str, Any]) -> tuple[Any, Any]:
    metrics = result.get("metrics", {})
    return metrics.get("data_fingerprint"), metrics.get("test_fingerprint")

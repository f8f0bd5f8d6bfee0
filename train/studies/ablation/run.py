"""The paper's ablations on any data set: train and evaluate each row, unless it was done before (Section 4.3)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import FitConfig, fit_config
from train.data.category import CategoryData
from train.errors import ConfigError
from train.evaluation import METRICS_FORMAT
from train.method.student import student_without_weights
from train.runs import fit_and_evaluate
from train.studies.ablation.rows import Ablation, AblationRow, run_name
from train.studies.paper_figures import mean
from train.studies.run_result import RunResult
from train.support.devices import Runtime
from train.support.files import read_json, write_json
from train.support.progress import console


@dataclass(frozen=True)
class RunSettings:
    """What all runs of an ablation share.

    Attributes:
        base: the configuration that rows change.
        seeds: one run of each.
        runs_dir: runs are kept under `<category>/ablations/`.
        runtime: where and how to train.
        keep_checkpoints: whether a checkpoint stays once it was evaluated; the paper's pair needs 0.2 GB a run.
    """

    base: FitConfig
    seeds: tuple[int, ...]
    runs_dir: Path
    runtime: Runtime
    keep_checkpoints: bool


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


@dataclass(frozen=True)
class AblationResult:
    """A table of the paper and the results of its rows, each over these products and settings."""

    ablation: Ablation
    rows: tuple[RowResult, ...]
    products: tuple[CategoryData, ...]
    settings: RunSettings


def run_ablations(
    ablations: Sequence[Ablation], products: Sequence[CategoryData], *, settings: RunSettings
) -> list[AblationResult]:
    """Run every row of the tables on every product and seed; runs that were done before are read.

    Raises:
        ConfigError: a network that timm does not have.
    """
    done: dict[tuple[str, FitConfig], RunResult] = {}
    results = []
    for ablation in ablations:
        rows = []
        for number, row in enumerate(ablation.rows, start=1):
            console.print(f"{ablation.title}, row {number} of {len(ablation.rows)}", style="bold")
            rows.append(_run_row(row, products, settings, done))
        results.append(AblationResult(ablation, tuple(rows), tuple(products), settings))
    return results


def _run_row(
    row: AblationRow,
    products: Sequence[CategoryData],
    settings: RunSettings,
    done: dict[tuple[str, FitConfig], RunResult],
) -> RowResult:
    fields = {**settings.base.model_dump(), **row.overrides}
    config = fit_config(settings.base.preset, fields | {"seed": settings.seeds[0]})
    impossible = reason_against(config)
    if impossible is not None:
        return RowResult(row, (), impossible)
    runs = []
    for product in products:
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
    return RunResult.of(
        data.category,
        config.seed,
        lambda: measured_run(data, config=config, run_dir=run_dir, settings=settings),
    )


def measured_run(
    data: CategoryData, *, config: FitConfig, run_dir: Path, settings: RunSettings
) -> dict[str, Any]:
    """Measures of a run: read from run.json where that is of these options and images, else trained and evaluated.

    Raises:
        UserError: see `train.runs.fit_and_evaluate`.
    """
    result_path = run_dir / "run.json"
    options, earlier = config.model_dump(mode="json"), read_json(result_path)
    if isinstance(earlier, dict) and earlier.get("config") == options:
        metrics = dict(earlier.get("metrics", {}))
        measured = tuple(metrics.get(name) for name in ("format", "data_fingerprint", "test_fingerprint"))
        # Measures of an earlier version of this program would stand in one table with those of today.
        if measured == (METRICS_FORMAT, data.fingerprint(), data.test_fingerprint()):
            return metrics
    metrics = fit_and_evaluate(data, config=config, run_dir=run_dir, runtime=settings.runtime, replace=True)
    write_json(result_path, {"config": options, "metrics": metrics})
    if not settings.keep_checkpoints:
        (run_dir / "checkpoint.safetensors").unlink()
    return metrics

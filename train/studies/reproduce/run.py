"""All of MVTec AD after the paper's protocol: train and evaluate each category (Section 4.2)."""

from __future__ import annotations

from pathlib import Path

from train.config import FitConfig
from train.data.sources import MVTEC_AD_CATEGORIES, find_category
from train.errors import ConfigError
from train.runs import fit_and_evaluate
from train.studies.run_result import RunResult
from train.support.devices import Runtime
from train.support.progress import console


def chosen_categories(listed: str) -> tuple[str, ...]:
    """`all`, or some of the 15 with commas between, in the paper's order.

    Raises:
        ConfigError: a name that MVTec AD does not have.
    """
    if listed == "all":
        return MVTEC_AD_CATEGORIES
    asked = {name.strip() for name in listed.split(",")}
    unknown = sorted(asked - set(MVTEC_AD_CATEGORIES))
    if unknown:
        raise ConfigError(
            f"MVTec AD has no category {', '.join(map(repr, unknown))}; expected some of "
            f"{', '.join(MVTEC_AD_CATEGORIES)}."
        )
    return tuple(category for category in MVTEC_AD_CATEGORIES if category in asked)


def run_category(
    category: str,
    *,
    data: str,
    data_dir: Path,
    config: FitConfig,
    runs_dir: Path,
    runtime: Runtime,
    replace: bool = False,
) -> RunResult:
    """Train and evaluate a category, unless that was done with these options and images; an interrupted run goes on.

    A finished run of other options or images is a fault of the category, unless it is to be replaced and kept beside.
    """
    console.print(category, style="bold")
    return RunResult.of(
        category,
        config.seed,
        lambda: fit_and_evaluate(
            find_category(category, data=data, data_dir=data_dir),
            config=config,
            run_dir=runs_dir / category,
            runtime=runtime,
            replace=replace,
        ),
    )

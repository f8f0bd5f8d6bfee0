"""All of MVTec AD after the paper's protocol: train and evaluate each category (Section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.config import FitConfig
from train.data.sources import MVTEC_AD_CATEGORIES, find_category
from train.errors import ConfigError, UserError
from train.runs import fit_and_evaluate
from train.support.progress import console
from train.support.tables import percent


@dataclass(frozen=True)
class CategoryResult:
    """A category's measures, or in one sentence why there are none.

    Attributes:
        category: the product's name.
        metrics: what stands in its metrics.json; empty where it failed.
        fault: None where it did not.
    """

    category: str
    metrics: Mapping[str, Any]
    fault: str | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the images were rendered."""
        return bool(self.metrics.get("synthetic"))

    def percent(self, measure: str) -> float | None:
        """A measure in percent."""
        return percent(self.metrics.get(measure))

    def percent_of_size(self, size: str) -> float | None:
        """Image ROCAUC of the defects of one size, percent; None where metrics.json does not have it."""
        sizes = self.metrics.get("by_size") or {}
        return percent((sizes.get(size) or {}).get("image_auroc"))


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
    weights_dir: Path | None,
    device: torch.device,
    strict: bool,
) -> CategoryResult:
    """Train and evaluate a category, unless that was done with these options and images; an interrupted run goes on.

    A fault that a user can mend (a missing folder, weights that cannot be had) is stored in the result, so that the
    other categories run.
    """
    console.print(category, style="bold")
    try:
        metrics = fit_and_evaluate(
            find_category(category, data=data, data_dir=data_dir),
            config=config,
            run_dir=runs_dir / category,
            weights_dir=weights_dir,
            device=device,
            strict=strict,
        )
    except UserError as error:
        console.print(f"{category}: {error.message}", style="red", markup=False)
        return CategoryResult(category, {}, error.message)
    return CategoryResult(category, metrics)

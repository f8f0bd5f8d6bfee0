"""All of MVTec AD after the paper's protocol: train, evaluate, and keep what was found (Section 4.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.config import FitConfig
from train.data.sources import find_category
from train.errors import ConfigError, DataError, UserError
from train.runs import evaluate_category, fit_category
from train.studies.paper_figures import CATEGORIES
from train.support.progress import console


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
        return _percent(self.metrics.get(measure))

    def percent_of_size(self, size: str) -> float | None:
        """Image ROCAUC of the defects of one size; None where there are none, or sizes were not told."""
        sizes = self.metrics.get("by_size") or {}
        return _percent((sizes.get(size) or {}).get("image_auroc"))


def chosen_categories(names: str) -> tuple[str, ...]:
    """`all`, or some of the 15 with commas between, in the paper's order.

    Raises:
        ConfigError: another name.
    """
    if names == "all":
        return CATEGORIES
    asked = {name.strip() for name in names.split(",")}
    unknown = sorted(asked - set(CATEGORIES))
    if unknown:
        raise ConfigError(
            f"MVTec AD has no category {', '.join(map(repr, unknown))}; expected some of {', '.join(CATEGORIES)}."
        )
    return tuple(category for category in CATEGORIES if category in asked)


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
    """Train and evaluate a category unless that was done with these options and images; goes on where it was stopped.

    What a user can mend (a missing folder, weights that cannot be had) is told in the result and stops nothing else.
    """
    console.print(category, style="bold")
    run_dir = runs_dir / category
    try:
        found = find_category(category, data=data, data_dir=data_dir)
        if not found.test:
            raise DataError(f"{found.root} has no test images to measure with; unpack it again.")
        fit_category(
            found,
            preset=config.preset,
            overrides=config.model_dump(),  # every option counts, not only those that were given
            run_dir=run_dir,
            weights_dir=weights_dir,
            device=device,
            strict=strict,
            force=False,
        )
        console.print(
            evaluate_category(found, run_dir=run_dir, device=device, strict=strict, force=False), markup=False
        )
        return CategoryResult(category, json.loads((run_dir / "metrics.json").read_text()))
    except UserError as error:
        console.print(f"{category}: {error.message}", style="red", markup=False)
        return CategoryResult(category, {}, error.message)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value

"""What became of one run of a study: its measures, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from train.errors import UserError
from train.support.progress import console
from train.support.tables import percent


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        category: the product's name.
        seed: of the run.
        metrics: what stands in its metrics.json; empty where it failed.
        fault: in one sentence why it failed; None where it did not.
    """

    category: str
    seed: int
    metrics: Mapping[str, Any]
    fault: str | None = None

    @classmethod
    def of(cls, category: str, seed: int, run: Callable[[], Mapping[str, Any]]) -> RunResult:
        """Run; a fault that a user can mend is stored, so that the other runs of the study go on."""
        try:
            return cls(category, seed, run())
        except UserError as error:
            console.print(f"{category}: {error.message}", style="red", markup=False)
            return cls(category, seed, {}, error.message)

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

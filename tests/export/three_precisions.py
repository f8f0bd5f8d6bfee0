"""Builds of a tiny category in all three precisions, see the fixture `built`."""

from __future__ import annotations

from pathlib import Path

from export.agreement import Limits
from export.builds.up_to_date import BuildResult, build_category
from export.product import ProductPaths
from tests.conftest import CATEGORY

# The tiny networks are untrained: their labels flip more easily than a trained one's.
LOOSE = Limits(auroc_loss=0.2, pro_loss=0.2, flips=0.3, false_reject_change=0.5)


def build(work: Path, precision: str, *, limits: Limits = LOOSE, images: Path | None = None) -> BuildResult:
    """Build what work/runs holds into work/build."""
    product = ProductPaths(CATEGORY, work / "runs", work / "build", images)
    return build_category(product, precision, limits=limits)

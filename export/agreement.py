"""How far from the trained networks a release may judge, and how far one was found to."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Limits(BaseModel):
    """How far a judge may be from PyTorch; None is no limit.

    Attributes:
        map_difference: largest difference at any position of any anomaly map.
        auroc_loss: of the image AUROC.
        pro_loss: of the per-region overlap.
        flips: share of the images whose label differs.
        false_reject_change: of the share of good images rejected, in either direction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    map_difference: float | None = None
    auroc_loss: float
    pro_loss: float
    flips: float
    false_reject_change: float


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(map_difference=1e-4, auroc_loss=1e-4, pro_loss=1e-4, flips=0, false_reject_change=0),
    "fp16": Limits(auroc_loss=0.0005, pro_loss=0.0005, flips=0.002, false_reject_change=0.01),
    "int8": Limits(auroc_loss=0.005, pro_loss=0.005, flips=0.01, false_reject_change=0.02),
}


class Agreement(BaseModel):
    """A judge beside PyTorch on a test set; a change is the judge's less PyTorch's, None where it cannot be had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str
    precision: str
    n_images: int
    max_map_difference: float
    mean_map_difference: float
    max_score_difference: float
    mean_score_difference: float
    image_auroc: float | None
    auroc_change: float | None
    pro_change: float | None
    flips: int
    false_reject_rate: float | None
    false_reject_change: float | None
    beyond_limits: list[str]

    @property
    def accepted(self) -> bool:
        """Whether every limit holds."""
        return not self.beyond_limits


def beyond(reached: Mapping[str, float | None], limits: Limits) -> list[str]:
    """A sentence for each limit that does not hold; a value that is no number is beyond every limit."""
    told = []
    for name, value in reached.items():
        limit = getattr(limits, name)
        if limit is not None and value is not None and not value <= limit:
            told.append(f"{name.replace('_', ' ')} {value:.2g}, at most {limit:g} allowed")
    return told

"""Where a checkpoint came from: data, weights, training and libraries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Provenance(BaseModel):
    """Where a checkpoint came from; written into its header and into every manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: str
    dataset: str
    data_root: str
    data_fingerprint: str
    synthetic: bool
    n_train: int
    n_held_out: int
    n_broken: int
    bit_depth: int = 8  # older checkpoints do not say
    weights: dict[str, str]
    steps: int | None = None  # older checkpoints do not say
    seconds_train: float
    final_loss: float
    versions: dict[str, str]
    created: str

"""How a run departs from the paper's protocol, said wherever its figures stand beside the paper's."""

from __future__ import annotations

from train.checkpoint.provenance import Provenance
from train.config import PRESETS, FitConfig

# Of no influence on what the paper measures, or told apart.
NOT_THE_PROTOCOL = {
    "seed", "holdout_ratio", "false_reject_rate", "pixel_false_positive_rate", "validation_interval", "compile",
    "mixed_precision",
}  # fmt: skip


def deviations_from_paper(config: FitConfig, provenance: Provenance) -> list[str]:
    """Sentences on what a run of the preset `paper` did otherwise; none for another preset."""
    if config.preset != "paper":
        return []
    n_good = provenance.n_train + provenance.n_held_out
    sentences = [
        f"{provenance.n_held_out} of {n_good} good images were held out to fit the thresholds on; the paper trains on "
        "all of them."
    ]
    paper = PRESETS["paper"].model_dump()
    others = [
        f"{name} {value} (the paper: {paper[name]})"
        for name, value in config.model_dump().items()
        if name not in NOT_THE_PROTOCOL and value != paper[name]
    ]
    if others:
        sentences.append(f"Other options than the paper's: {', '.join(others)}.")
    return sentences

"""The goals on one H100, and what falls short of them, with what limits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GFLOP_AN_IMAGE = 61.8  # of `paper` at 256 px, teacher and student
DATA_SHEET_TFLOPS = (800.0, 989.0)
AT_LEAST, AT_MOST = "at least", "at most"
Parts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A value and what it is held to.

    Attributes:
        name: what is measured, with its unit.
        value: None where it was not measured.
        limit: the goal.
        direction: AT_LEAST or AT_MOST.
        limited_by: what limits it where it falls short, or why it was not measured.
    """

    name: str
    value: float | None
    limit: float
    direction: str
    limited_by: str

    @property
    def verdict(self) -> str:
        """`holds`, `FALLS SHORT` or `not measured`."""
        if self.value is None:
            return "not measured"
        good = self.value >= self.limit if self.direction == AT_LEAST else self.value <= self.limit
        return "holds" if good else "FALLS SHORT"

    def cells(self) -> list[str]:
        """Its line in the table."""
        value = (
            "" if self.value is None else f"{self.value:,.4g}" if self.value < 1000 else f"{self.value:,.0f}"
        )
        limited_by = "" if self.verdict == "holds" else self.limited_by
        return [self.name, value, f"{self.direction} {self.limit:,g}", self.verdict, limited_by]


def goals_of(parts: Parts) -> list[Goal]:
    """The issue's goals, held against what was measured."""
    best = best_chain(parts)
    return [
        Goal("bare chain, images/s", best, 4000, AT_LEAST, chain_limit(parts)),
        Goal("bare chain, images/s, stretch", best, 6000, AT_LEAST, chain_limit(parts)),
        Goal("bare chain, p50 at batch 1, ms", best_p50(parts), 2, AT_MOST, launch_limit(parts)),
        Goal(
            "ensemble with scores, images/s", ensemble(parts, "scores"), 3000, AT_LEAST, wall(parts, "scores")
        ),
        Goal("ensemble with maps, images/s", ensemble(parts, "maps"), 2000, AT_LEAST, wall(parts, "maps")),
        Goal("fit of 200 epochs of pill, s", whole_fit_s(parts), 300, AT_MOST, fit_limit(parts)),
    ]


def best_chain(parts: Parts) -> float | None:
    """Images/s of the fastest bare pair: plain, compiled, or in another runtime."""
    rates = [parts.get(name, {}).get("best_images_per_s") for name in ("pair", "pair-compiled")]
    for runtime in ("onnxruntime", "tensorrt"):
        measured = parts.get("runtimes", {}).get(runtime, {})
        rates += [value for name, value in measured.items() if name.startswith("images_per_s_")]
    return max((rate for rate in rates if rate), default=None)


def best_p50(parts: Parts) -> float | None:
    """Milliseconds of one image with the copies, of the fastest."""
    runtimes = parts.get("runtimes", {})
    measured = [parts.get("pair", {}), parts.get("pair-compiled", {})]
    measured += [runtimes.get("onnxruntime", {}), runtimes.get("tensorrt", {})]
    return min((part["p50_ms"] for part in measured if "p50_ms" in part), default=None)


def fusion_rate(parts: Parts, mode: str) -> float | None:
    """Images/s of the fusion with most instances: over gRPC, or without a server in plain Python."""
    fusion = parts.get("fusion", {})
    measured = fusion.get("served") or fusion.get("python") or {}
    return max((rate for name, rate in measured.items() if name.endswith(mode)), default=None)


def ensemble(parts: Parts, mode: str) -> float | None:
    """What an ensemble can give at most: the slower of the bare chain and the fusion. No Triton with a GPU was run."""
    chain, fusion = best_chain(parts), fusion_rate(parts, mode)
    return None if chain is None or fusion is None else min(chain, fusion)


def whole_fit_s(parts: Parts) -> float | None:
    """Seconds of the whole fit of `paper`; of one that was stopped, what its loop's speed comes to."""
    fit = parts.get("fit-paper", {})
    if "fit_s" in fit:
        return float(fit["fit_s"])
    rate, images, epochs = fit.get("loop_images_per_s"), fit.get("images"), fit.get("epochs")
    return None if not (rate and images and epochs) else 0.85 * images * epochs / rate


def share_of_peak(parts: Parts, images_per_s: float | None, gflop: float | None) -> float | None:
    """0..1, of what the card's matrix units were measured to reach."""
    peak = parts.get("machine", {}).get("matrix_tflops")
    return None if not (images_per_s and gflop and peak) else images_per_s * gflop / 1000 / peak


def chain_limit(parts: Parts) -> str:
    """What limits the bare chain."""
    pair = parts.get("pair", {})
    share = share_of_peak(parts, best_chain(parts), pair.get("gflop_an_image"))
    if share is None:
        return str(pair.get("fault", "the pair was not measured"))
    if share > 0.5:
        return f"arithmetic: {share:.0%} of what the matrix units reach"
    return f"memory traffic between layers and small kernels: {share:.0%} of what the matrix units reach"


def launch_limit(parts: Parts) -> str:
    """What limits one image."""
    pair = parts.get("pair", {})
    if "p50_ms" not in pair:
        return str(pair.get("fault", "the pair was not measured"))
    graph = "launched as one CUDA graph" if pair.get("cuda_graph") else "no CUDA graph"
    return f"small kernels one after the other, {graph}"


def wall(parts: Parts, mode: str) -> str:
    """Which of chain and fusion limits the ensemble."""
    chain, fusion = best_chain(parts), fusion_rate(parts, mode)
    if chain is None or fusion is None:
        part = "pair" if chain is None else "fusion"
        return str(parts.get(part, {}).get("fault", f"{part} was not measured"))
    return "the bare chain" if chain < fusion else "the fusion on the CPU: more instances, or scores alone"


def fit_limit(parts: Parts) -> str:
    """What limits the fit."""
    fit, loops = parts.get("fit-paper", {}), parts.get("loops-paper", {})
    rate, good = fit.get("loop_images_per_s"), loops.get("good_images_per_s")
    if not rate:
        return str(fit.get("fault", "no step was seen"))
    if good and rate < good:
        return f"the loop: {rate:,.0f} images/s, where a good one has {good:,.0f}"
    return f"arithmetic of the loop: {rate:,.0f} images/s"

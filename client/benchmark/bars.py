"""How fast serving has to be: limits that a result holds or falls short of."""

from __future__ import annotations

from dataclasses import dataclass

from client.benchmark.measured import requests_for
from client.benchmark.result import BenchResult

# Limits by preset: of the throughput the lowest that holds, of all others the highest.
P50_RATIO = {"edge": 1.15, "paper": 1.05}
DEFAULT_P50_RATIO = {"edge": 1.25, "paper": 1.10}
TAIL_RATIO = {"edge": 1.5, "paper": 1.3}
THROUGHPUT_RATIO = {"edge": 0.95, "paper": 0.97}
ENCODED_RATIO = {"edge": 1.10, "paper": 1.05}
# `edge` through a server on a CPU. A request's hop between processes takes a large part of an image's few milliseconds,
# so its figures are held to what the platform can do. docs/guides/benchmark.md says how the floors were measured.
ONNXRUNTIME_P50_RATIO, ONNXRUNTIME_THROUGHPUT_RATIO = 1.5, 0.75
PYTHON_P50_FLOOR, PYTHON_THROUGHPUT_FLOOR = 1.18, 0.91
PYTHON_REMARK = (
    "edge on platform python: a floor is what backbones as fast as the bare chain would have with the hop to the "
    "fusion alone. `make bench-all WHAT=peers` holds it to 1.3 times torch in FastAPI and pytriton."
)
NOTHING = "-"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: what is compared.
        value: the ratio that was measured, or None.
        limit: the highest or lowest value that holds; None where the value is only shown.
        at_most: the limit is the highest value, not the lowest.
        reason: why nothing was measured, if nothing was.
        floor: the best value that the platform can have, where that was measured; shown where there is no limit.
    """

    name: str
    value: float | None
    limit: float | None
    at_most: bool
    reason: str = ""
    floor: float | None = None

    @property
    def cleared(self) -> bool:
        """Whether there is a value and it is within the limit, if there is one."""
        if self.value is None or self.limit is None:
            return self.value is not None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def verdict(self) -> str:
        """`holds`, `FALLS SHORT`, `no bar`, or why nothing can be said."""
        if self.value is None:
            return self.reason
        if self.limit is None:
            return "no bar"
        return "holds" if self.cleared else "FALLS SHORT"

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.verdict}: {self.name}"
        expected = "" if self.limit is None else "expected "
        beside = "" if self.limit_text == NOTHING else f", {expected}{self.limit_text}"
        return f"{self.verdict}: {self.name} is {self.value:.4g}{beside}"

    @property
    def limit_text(self) -> str:
        """The limit in words, or the floor where there is no limit."""
        if self.limit is None:
            return NOTHING if self.floor is None else f"floor {self.floor:.2f}"
        return f"{'at most' if self.at_most else 'at least'} {self.limit:.2f}"


def bars(result: BenchResult) -> list[Bar]:
    """The bars of a result's preset and platform; those of `edge` for a preset of one's own."""
    comparable = result.header.server_is_here
    no_chain = "no bare chain was measured on the server's machine"
    no_sweeps = no_chain if not comparable or result.bare_chain is None else "not measured without the sweeps"
    too_few = f"{result.ensemble.requests} requests are too few, {requests_for(99)} would do"
    no_files = "not measured" if comparable else "the server is elsewhere"

    def local(ratio: float | None) -> float | None:
        """A ratio to a figure of this machine, which says nothing about a server on another one."""
        return ratio if comparable else None

    p50, of_defaults = "p50 over gRPC, batch 1 / bare chain's", result.default_p50_ratio
    throughput = "images/s at the best concurrency / bare chain's at its best batch"
    files = "p50 of JPEG files / pixels + decoding and resizing"
    limits = _limits(_preset(result), result.header.platform)
    floors = _floors(_preset(result), result.header.platform)
    return [
        Bar(p50, local(result.p50_ratio), limits["p50"], True, no_chain, floors.get("p50")),
        Bar(f"{p50}, ONNX Runtime's defaults", local(of_defaults), limits["defaults"], True, no_chain),
        Bar("p99 / p50", result.tail_ratio, limits["tail"], True, too_few),
        Bar(
            throughput,
            local(result.throughput_ratio),
            limits["throughput"],
            False,
            no_sweeps,
            floors.get("throughput"),
        ),
        Bar(files, local(result.encoded_ratio), limits["files"], True, no_files),
    ]


def remark(result: BenchResult) -> str | None:
    """What a reader has to know of figures without a bar."""
    return PYTHON_REMARK if _floors(_preset(result), result.header.platform) else None


def _preset(result: BenchResult) -> str:
    return result.header.preset if result.header.preset in P50_RATIO else "edge"


def _limits(preset: str, platform: str) -> dict[str, float | None]:
    limits: dict[str, float | None] = {
        "p50": P50_RATIO[preset],
        "defaults": DEFAULT_P50_RATIO[preset],
        "tail": TAIL_RATIO[preset],
        "throughput": THROUGHPUT_RATIO[preset],
        "files": ENCODED_RATIO[preset],
    }
    if preset == "edge" and platform == "onnxruntime":
        held = {"p50": ONNXRUNTIME_P50_RATIO, "throughput": ONNXRUNTIME_THROUGHPUT_RATIO}
        return limits | {"tail": None, "files": None} | held
    if preset == "edge" and platform == "python":
        return limits | dict.fromkeys(("p50", "tail", "throughput", "files"))
    return limits


def _floors(preset: str, platform: str) -> dict[str, float]:
    if preset == "edge" and platform == "python":
        return {"p50": PYTHON_P50_FLOOR, "throughput": PYTHON_THROUGHPUT_FLOOR}
    return {}

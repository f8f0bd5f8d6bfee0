"""How fast serving has to be: bars that a result clears or falls short of."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from client.benchmark.measured import requests_for
from client.benchmark.result import BenchResult

# At most, or at least, by preset. What a bar stands for is told in docs/guides/benchmark.md.
P50_RATIO = {"edge": 1.15, "paper": 1.05}
DEFAULT_P50_RATIO = {"edge": 1.25, "paper": 1.10}
TAIL_RATIO = {"edge": 1.5, "paper": 1.3}
THROUGHPUT_RATIO = {"edge": 0.95, "paper": 0.97}
ENCODED_RATIO = {"edge": 1.10, "paper": 1.05}


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: what is compared.
        value: the ratio that was measured, or None.
        limit: what it is held to.
        at_most: whether the limit is an upper one.
        reason: why there is no value.
    """

    name: str
    value: float | None
    limit: float
    at_most: bool
    reason: str = ""

    @property
    def cleared(self) -> bool:
        """Whether a value is there and within the limit."""
        compare = operator.le if self.at_most else operator.ge
        return self.value is not None and compare(self.value, self.limit)

    @property
    def verdict(self) -> str:
        """`holds`, `FALLS SHORT`, or why nothing can be said."""
        if self.value is None:
            return self.reason
        return "holds" if self.cleared else "FALLS SHORT"

    def __str__(self) -> str:
        value = "" if self.value is None else f" is {self.value:.4g}, expected {self.limit_text}"
        return f"{self.verdict}: {self.name}{value}"

    @property
    def limit_text(self) -> str:
        """The limit in words."""
        return f"{'at most' if self.at_most else 'at least'} {self.limit:.2f}"


def bars(result: BenchResult) -> list[Bar]:
    """The bars of a result's preset; those of `edge` for a preset of one's own."""
    preset = result.header.preset if result.header.preset in P50_RATIO else "edge"
    no_chain = "no bare chain was measured on the server's machine"
    comparable = result.header.server_is_here
    return [
        Bar(
            "p50 over gRPC, batch 1 / bare chain's",
            result.p50_ratio if comparable else None,
            P50_RATIO[preset],
            True,
            no_chain,
        ),
        Bar(
            "p50 over gRPC, batch 1 / bare chain's, ONNX Runtime's defaults",
            result.default_p50_ratio if comparable else None,
            DEFAULT_P50_RATIO[preset],
            True,
            no_chain,
        ),
        Bar(
            "p99 / p50",
            result.tail_ratio,
            TAIL_RATIO[preset],
            True,
            f"{result.ensemble.requests} requests are too few, {requests_for(99)} would do",
        ),
        Bar(
            "images/s at the best concurrency / bare chain's at its best batch",
            result.throughput_ratio if comparable else None,
            THROUGHPUT_RATIO[preset],
            False,
            no_chain if not comparable or result.bare_chain is None else "not measured without the sweeps",
        ),
        Bar(
            "p50 of JPEG files / pixels + decoding and resizing",
            result.encoded_ratio if comparable else None,
            ENCODED_RATIO[preset],
            True,
            "the server is elsewhere" if not comparable else "not measured",
        ),
    ]

"""Latencies as percentiles, where there are enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.benchmark.statistics import StepTimes, pooled
from client.core.errors import BenchmarkError

BEYOND = 5  # a percentile is given only where at least so many requests were slower


@dataclass(frozen=True)
class Load:
    """One run of requests.

    Attributes:
        latencies_ms: of each request, milliseconds.
        throughput: images a second over the whole run.
        steps: where the server spent the time, for the ensembles.
    """

    latencies_ms: list[float]
    throughput: float
    steps: tuple[StepTimes, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Requests of one kind, from one run or several.

    Attributes:
        requests: how many.
        batch: images a request.
        concurrency: requests in flight.
        p50_ms, p90_ms, p99_ms: latency of a request, milliseconds; None where fewer than `BEYOND` were slower.
        throughput: images a second.
        steps: where the server spent the time, for the ensembles.
    """

    requests: int
    batch: int
    concurrency: int
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    throughput: float
    steps: tuple[StepTimes, ...] = ()


def summarise(loads: Sequence[Load], *, batch: int = 1, concurrency: int = 1) -> Measured:
    """Several loads of one kind as one.

    Raises:
        BenchmarkError: too few requests for a median.
    """
    latencies_ms = [latency for load in loads for latency in load.latencies_ms]
    p50_ms = percentile(latencies_ms, 50)
    if p50_ms is None:
        raise BenchmarkError(
            f"{len(latencies_ms)} requests are too few for a median; give at least {2 * BEYOND} with --requests."
        )
    return Measured(
        requests=len(latencies_ms),
        batch=batch,
        concurrency=concurrency,
        p50_ms=p50_ms,
        p90_ms=percentile(latencies_ms, 90),
        p99_ms=percentile(latencies_ms, 99),
        throughput=len(latencies_ms) / sum(len(load.latencies_ms) / load.throughput for load in loads),
        steps=pooled(load.steps for load in loads),
    )


def percentile(latencies_ms: Sequence[float], percent: float) -> float | None:
    """A percentile, or None where chance decides it: fewer than `BEYOND` values lie beyond."""
    if len(latencies_ms) * (100 - percent) / 100 < BEYOND - 1e-9:
        return None
    return float(np.percentile(latencies_ms, percent))


def requests_for(percent: float) -> int:
    """The fewest requests that give a percentile."""
    return int(np.ceil(BEYOND * 100 / (100 - percent)))

"""This client's ways to ask, timed beside the plain call: what a connection, a map and a wait cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from PIL import Image

from client.benchmark.measured import percentile
from client.core.verdicts import Score
from client.judging.connection import JudgeClient
from client.judging.served import IN_FLIGHT

ROUNDS = 3
BATCH = 4
Ask = Callable[[Sequence[Image.Image]], Iterable[Score]]


@dataclass(frozen=True)
class CallMeasured:
    """One way to ask.

    Attributes:
        name: of the way.
        requests: images that were asked about.
        p50_ms: from sending an image's request to having its answer, milliseconds.
        p99_ms: the same; None where there were too few.
        throughput: images a second.
    """

    name: str
    requests: int
    p50_ms: float | None
    p99_ms: float | None
    throughput: float


def measure_calls(
    judge: JudgeClient, *, images: Sequence[Image.Image], requests: int, shared_memory: bool
) -> tuple[CallMeasured, ...]:
    """Time every way to ask, in turns.

    Args:
        judge: the category, over the wire.
        images: of the size that the category takes, asked about in turn.
        requests: images that are asked about in each way, over all rounds.
        shared_memory: the server is on this host, so that shared memory can be measured too.

    Raises:
        ServerError: the server does not answer.
    """
    each = -(-requests // ROUNDS)
    chosen = list(itertools.islice(itertools.cycle(images), each))
    ways = _ways(judge)
    with ExitStack() as stack:
        if shared_memory:
            shared = stack.enter_context(_connect(judge, shared_memory=True))
            ways |= {
                f"{name}, shared memory": ask for name, ask in _ways(shared).items() if "client" not in name
            }
        latencies: dict[str, list[float]] = {name: [] for name in ways}
        seconds = dict.fromkeys(ways, 0.0)
        for _ in range(ROUNDS):
            for name, ask in ways.items():
                started = time.perf_counter()
                latencies[name] += [answer.latency_ms for answer in ask(chosen)]
                seconds[name] += time.perf_counter() - started
    return tuple(
        CallMeasured(
            name=name,
            requests=len(latencies_ms),
            p50_ms=percentile(latencies_ms, 50),
            p99_ms=percentile(latencies_ms, 99),
            throughput=len(latencies_ms) / seconds[name],
        )
        for name, latencies_ms in latencies.items()
    )


def _ways(judge: JudgeClient) -> dict[str, Ask]:
    batch = min(BATCH, judge.max_batch)
    return {
        "plain call": lambda images: map(judge.judge, images),
        "a new client each time": lambda images: _reconnecting(judge, images),
        "score only": lambda images: map(judge.score, images),
        f"{IN_FLIGHT} in flight": lambda images: judge.judge_many(images, in_flight=IN_FLIGHT),
        f"{IN_FLIGHT} in flight, score only": lambda images: judge.score_many(images, in_flight=IN_FLIGHT),
        f"batches of {batch}": lambda images: judge.judge_many(images, in_flight=1, batch=batch),
        f"{IN_FLIGHT} batches of {batch} in flight": lambda images: judge.judge_many(
            images, in_flight=IN_FLIGHT, batch=batch
        ),
    }


def _reconnecting(judge: JudgeClient, images: Sequence[Image.Image]) -> Iterator[Score]:
    """Connect and look the category up anew for every image."""
    for image in images:
        started = time.perf_counter()
        with _connect(judge) as new:
            verdict = new.judge(image)
        yield replace(verdict, latency_ms=1000 * (time.perf_counter() - started))


def _connect(judge: JudgeClient, *, shared_memory: bool = False) -> JudgeClient:
    """Another connection to the same category."""
    return JudgeClient(
        judge.endpoint,
        category=judge.category,
        timeout_s=judge.timeout_s,
        shared_memory=shared_memory,
        probe=True,
    )

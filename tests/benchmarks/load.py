"""Load on a server: some requests in flight, each sent when an earlier one is answered, until a number is reached."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from client.benchmark.measured import Load

Pixels = NDArray[np.uint8]
Send = Callable[[int], object]


def closed_loop(
    connect: Callable[[], AbstractContextManager[Send]], *, concurrency: int, requests: int
) -> Load:
    """Send requests 0, 1, 2, ... from as many threads as shall be in flight, each over a connection of its own.

    Args:
        connect: opens a connection; it gives a function that sends a request of a given number and reads the answer.
        concurrency: requests in flight at a time.
        requests: how many in all.
    """
    numbers = iter(range(requests))
    ready = threading.Barrier(concurrency)

    def work() -> list[tuple[float, float]]:
        with connect() as send:
            ready.wait()
            spans = []
            while (
                number := next(numbers, None)
            ) is not None:  # the interpreter's lock makes it one at a time
                started = perf_counter()
                send(number)
                spans.append((started, perf_counter()))
            return spans

    with ThreadPoolExecutor(concurrency) as pool:
        workers = [pool.submit(work) for _ in range(concurrency)]
        spans = list(itertools.chain.from_iterable(worker.result() for worker in workers))
    starts, ends = np.array(spans).T
    return Load((1000 * (ends - starts)).tolist(), throughput=requests / float(ends.max() - starts.min()))

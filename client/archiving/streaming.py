"""Shards to workers and their rows back, with Ray Data: paths and files of rows pass through Ray, never pixels."""

from __future__ import annotations

import logging
import os
import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from client.archiving.plan import END, Plan, Shard
from client.archiving.rows import Row, shard_file
from client.archiving.work import ShardJudge, StoppedError, Task
from client.core.errors import ClientError, ServerError
from model_repository.grpc_endpoint import INSECURE

WAVE = 200  # shards whose paths Ray holds at a time
LOOK_S = 0.2  # between looks at whether the run is to stop
DEATHS = 3  # of the workers of one shard; then it is the shard
DIED = (
    f"the worker that judged its shard died {DEATHS} times (out of memory?); judge these images with a small --shard "
    "into another file to find the one to blame."
)
BLOCK_BYTES = 8 << 20  # more than a shard's rows have; Ray Data reserves some of these for each worker


@dataclass(frozen=True)
class Done:
    """What a worker gives back.

    Attributes:
        number: of the shard.
        content: its file of rows; empty where the work ended before it was done.
        fault: why the work ended, one sentence; empty where it did not.
    """

    number: int
    content: bytes
    fault: str


class Worker:
    """One of Ray Data's actors: it takes a table of a shard's number and paths, and gives one of `Done`."""

    def __init__(self, task: Task) -> None:
        """Nothing is asked yet."""
        if task.insecure:
            os.environ.setdefault(INSECURE, task.insecure)
        self._judge = ShardJudge(task, first=os.getpid())

    def __call__(self, shards: Any) -> Any:
        """Judge the shards of a table."""
        done = [self._judged(**shard) for shard in shards.to_pylist()]
        return pa.table(
            {name: [getattr(each, name) for each in done] for name in ("number", "content", "fault")}
        )

    def _judged(self, number: int, paths: bytes, digest: str) -> Done:
        try:
            rows = self._judge.judge(paths)
        except (StoppedError, ClientError) as error:
            return Done(number, b"", str(error))
        except Exception as error:  # otherwise Ray would drop the shard without a word
            return Done(number, b"", f"A worker failed: {type(error).__name__}: {error}")
        return Done(number, shard_file(rows, digest=digest), "")


def judged_shards(
    plan: Plan, shards: Sequence[Shard], task: Task, *, workers: int, stop: threading.Event
) -> Iterator[Done]:
    """What workers give back of shards, as each is done; until `stop` is set.

    A shard whose worker has died three times is given back with rows that say so: an image of it may be to blame, one
    that takes all the memory, and the others go on.

    Raises:
        ServerError: Ray cannot go on.
    """
    for first in range(0, len(shards), WAVE):
        wave = shards[first : first + WAVE]
        lost = {shard.number: shard for shard in wave}
        for done in _wave(plan, wave, task, workers=min(workers, len(wave)), stop=stop):
            lost.pop(done.number, None)
            yield done
        if stop.is_set():
            return
        for shard in lost.values():
            yield _without_verdicts(plan, shard, task.category)


def _without_verdicts(plan: Plan, shard: Shard, category: str) -> Done:
    """A shard whose worker died each time that it was asked."""
    rows = [
        Row(path, category, datetime.now(UTC), error=f"{os.fsdecode(path)} was not judged: {DIED}")
        for path in plan.paths_of(shard).split(END)[:-1]
    ]
    return Done(shard.number, shard_file(rows, digest=plan.digest_of(shard)), "")


def _wave(
    plan: Plan, shards: Sequence[Shard], task: Task, *, workers: int, stop: threading.Event
) -> Iterator[Done]:
    """What workers give back of so many shards as Ray may know at a time."""
    arrived: queue.SimpleQueue[Done | BaseException | None] = queue.SimpleQueue()

    def collect() -> None:
        """In a thread, for Ray's waiting is not interrupted."""
        try:
            for table in _dataset(plan, shards, task, workers):
                for each in table.to_pylist():
                    arrived.put(Done(**each))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=collect, daemon=True, name="shards").start()
    while not stop.is_set():
        try:
            each = arrived.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        if each is None:
            return
        if isinstance(each, BaseException):
            raise ServerError(f"Ray cannot go on ({_last_words(each)}).")
        yield each


def _dataset(plan: Plan, shards: Sequence[Shard], task: Task, workers: int) -> Iterator[Any]:
    """Tables of what workers give back, as it comes."""
    import ray.data

    _quiet()
    tables = [
        pa.table(
            {
                "number": [shard.number],
                "paths": pa.array([plan.paths_of(shard)], pa.binary()),
                "digest": [plan.digest_of(shard)],
            }
        )
        for shard in shards
    ]
    with warnings.catch_warnings():  # Ray 2.64 is to have another way of saying how often
        warnings.simplefilter("ignore", DeprecationWarning)
        judged = ray.data.from_arrow(tables).map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_task_retries=DEATHS - 1,
            max_restarts=DEATHS * len(shards),
            fn_constructor_kwargs={"task": task.portable()},
        )
    # Without looking ahead: a shard is kept as soon as it is done.
    yield from judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _quiet() -> None:
    """Let Ray Data say nothing, and run as many shards as there are workers."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a shard whose worker dies is missing at the end, and the others go on
    context.target_max_block_size = BLOCK_BYTES
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _last_words(error: BaseException) -> str:
    """What an error comes to: Ray's begin with stacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(". ") if lines else type(error).__name__

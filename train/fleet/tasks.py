"""The tasks of a fleet: handed out, watched, taken in, begun again, and stopped where that is asked for."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from train.errors import UserError
from train.fitting.interruption import deferred_signals
from train.fleet.board import Board, FleetState, Result
from train.fleet.bundle import pack, put_in_place
from train.fleet.cluster import FleetNode, find_nodes, stays_on_this_node, this_nodes_name
from train.fleet.outcome import FleetOutcome
from train.fleet.plan import Job, Share
from train.fleet.processes import STOP_S
from train.fleet.table import FleetDisplay, fleet_display
from train.fleet.task import run_category
from train.support.files import write_text
from train.support.progress import console

POLL_S = 0.5
NODES_S = 3.0  # between looks at which nodes live
LOGS = ".fleet"  # in the folder of runs: all that each category's commands have printed
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def ray_task(job: Job, carried: bytes | None, board: Any) -> tuple[Result, bytes | None]:
    """What Ray runs on a node; see `train.fleet.task.run_category`."""
    import ray

    return run_category(
        job,
        carried,
        node=this_nodes_name(ray),
        attempt=ray.get(board.begin.remote(job.category)),
        report=lambda report: board.report.remote(job.category, report),
    )


class FleetTasks:
    """Tasks that are handed out, and what is known of each.

    Args:
        ray: connected.
        jobs: one a category.
        share: what each task gets.
        nodes: those that can take one.
        carrying: whether files have to be sent along, as not all nodes share the folders.
    """

    def __init__(
        self, ray: Any, jobs: Sequence[Job], share: Share, *, nodes: Sequence[FleetNode], carrying: bool
    ) -> None:
        self.ray, self.share, self.carrying = ray, share, carrying
        self.jobs = {job.category: job for job in jobs}
        self.state = FleetState.of(tuple(self.jobs))
        self.results: dict[str, Result] = {}
        self._waiting = deque(jobs)
        self._running: dict[Any, tuple[str, Any]] = {}  # files to wait for: category and result
        self._nodes, self._looked_s = {node.id: node for node in nodes}, time.monotonic()
        here = stays_on_this_node(ray)
        self._board = (
            ray.remote(Board)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote()
        )
        self._task = ray.remote(ray_task).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            memory=int(share.memory_gb * 1e9),
            max_retries=share.retries,
            num_returns=2,
        )

    def run(self) -> FleetOutcome:
        """Hand out all tasks and wait for them; Ctrl-C, and the signals that end a process, stop them all."""
        stopped = False
        with fleet_display(self.state) as display, _signals_as_ctrl_c():
            try:
                while self._waiting or self._running:
                    self._hand_out()
                    self._take(display)
                    display.show(self.state, [*self._look_at_nodes(), *self._look_at_board()])
            except KeyboardInterrupt:
                stopped = True
                self._stop(display)
        results = self.results.items()
        return FleetOutcome(
            self.state,
            tuple(category for category, result in results if result["other_code"]),
            tuple(category for category, result in results if result["unknown_code"]),
            stopped,
        )

    def _hand_out(self) -> None:
        """Begin tasks, twice as many as can run at once: what they are sent does not fill the memory."""
        most = 2 * max(1, sum(node.slots for node in self._nodes.values()))
        while self._waiting and len(self._running) < most:
            job = self._waiting.popleft()
            carried = None
            if self.carrying:
                carried = pack(job.category, runs_dir=job.runs_dir, build_dir=job.build_dir)
            result, files = self._task.remote(job, carried, self._board)
            self._running[files] = job.category, result

    def _take(self, display: FleetDisplay) -> None:
        """Take in what has ended. Files count as there when they are on this machine, so that no node is waited for."""
        ended, _ = self.ray.wait(list(self._running), timeout=POLL_S)
        for files in ended:
            category, reference = self._running.pop(files)
            try:
                result: Result = self.ray.get(reference)
                self._put_in_place(category, result, self.ray.get(files))
            except UserError as error:
                lines = self.state.fail(category, error.message)
            except self.ray.exceptions.RayError as error:
                lines = self.state.fail(category, self._why_lost(error))
            else:
                self.results[category] = result
                lines = self.state.end(category, result)
            display.show(self.state, lines)

    def _put_in_place(self, category: str, result: Result, files: bytes | None) -> None:
        job = self.jobs[category]
        write_text(job.runs_dir / LOGS / f"{category}.log", result["log"])
        if files is not None:
            with deferred_signals():  # a Ctrl-C waits until all of them lie where they belong
                put_in_place(files, category, result["made"], runs_dir=job.runs_dir, build_dir=job.build_dir)

    def _why_lost(self, error: Exception) -> str:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        if isinstance(error, self.ray.exceptions.OutOfMemoryError):
            return f"the memory of its node did not suffice; ask for more with --memory-per-task ({reason})."
        if isinstance(error, self.ray.exceptions.RayTaskError):
            return f"its task failed, which is a fault of this program: {reason}"
        times = self.share.retries + 1
        return f"its process or its node died, {times} times in all ({type(error).__name__}); the same command goes on."

    def _look_at_nodes(self) -> list[str]:
        """Which nodes came and went since the last look, a line each."""
        if time.monotonic() - self._looked_s < NODES_S:
            return []
        self._looked_s, before = time.monotonic(), self._nodes
        self._nodes = {node.id: node for node in find_nodes(self.ray, self.share)}
        lines = [f"Node {node.name} is gone." for key, node in before.items() if key not in self._nodes]
        lines += [f"Node {node.name} has joined." for key, node in self._nodes.items() if key not in before]
        if lines and not self._nodes:
            lines.append("No node is left that can take a task: waiting for one; Ctrl-C stops.")
        return lines

    def _look_at_board(self) -> list[str]:
        try:
            return self.state.heed(self.ray.get(self._board.read.remote()))
        except self.ray.exceptions.RayActorError:  # it died, and is begun again
            return []

    def _stop(self, display: FleetDisplay) -> None:
        """Cancel all tasks, and wait until each has ended its command, which saves the state of a training."""
        console.print("Stopping every task after its step; once more to stop at once.", style="yellow")
        with contextlib.suppress(KeyboardInterrupt):
            for files in self._running:
                self.ray.cancel(files)
            given_up_s = time.monotonic() + STOP_S + 10
            waiting = list(self._running)
            while waiting and time.monotonic() < given_up_s:
                _, waiting = self.ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        self.state.stop()
        display.show(self.state, [])


@contextlib.contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Within it, the signals that end a process do what Ctrl-C does; Ray leaves its own way of ending behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

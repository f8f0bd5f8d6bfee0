"""The processes of a server's Python steps, Triton's stubs: which there are, and which are dead or stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

PROGRAM = "triton_python_backend_stub"
GONE = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


@dataclass(frozen=True)
class Stub:
    """One process of a Python step.

    Attributes:
        pid: its process id.
        model: the step.
        instance: which of the step's instances, `pill_student_0_0` say.
    """

    pid: int
    model: str
    instance: str


@dataclass
class StubLook:
    """What is wrong with stubs at one look.

    Attributes:
        dead: those that have ended while their server did not end them.
        stopped: those that stand still, by SIGSTOP say.
        unknown: process ids of dead ones that no look before has seen alive.
    """

    dead: list[Stub] = field(default_factory=list)
    stopped: list[Stub] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)


class StubWatch:
    """Follows the stubs of one server from look to look.

    A server that ends a stub itself, as when it unloads a model, also takes its exit code. One that crashed stays a
    zombie, whose command line is gone: its step is known from a look before.
    """

    def __init__(self, server_pid: int) -> None:
        """Watch the children of a server."""
        self._server = server_pid
        self._known: dict[int, Stub] = {}
        self._dead_before: set[int] = set()
        self._stopped_before: set[int] = set()
        self._told: set[int] = set()

    def look(self) -> StubLook:
        """What has gone wrong since the last look; a stub counts when two looks find it so, and is told once."""
        found = StubLook()
        dead: set[int] = set()
        stopped: set[int] = set()
        for process, status in _children(self._server):
            if status in GONE:
                if process.pid in self._known or _is_stub_by_name(process):
                    dead.add(process.pid)
            elif stub := self._stub(process):
                self._known[process.pid] = stub
                if status == psutil.STATUS_STOPPED:
                    stopped.add(process.pid)
        fresh = sorted((dead & self._dead_before) - self._told)
        self._told.update(fresh)
        found.dead = [self._known[pid] for pid in fresh if pid in self._known]
        found.unknown = [pid for pid in fresh if pid not in self._known]
        found.stopped = [self._known[pid] for pid in sorted(stopped & self._stopped_before)]
        self._dead_before, self._stopped_before = dead, stopped
        return found

    def by_model(self) -> dict[str, list[Stub]]:
        """Those that were alive at the last look, by step."""
        return {model: self.of(model) for model in {stub.model for stub in self._known.values()}}

    def of(self, model: str) -> list[Stub]:
        """The stubs of a step that were alive at the last look."""
        return [
            stub for stub in self._known.values() if stub.model == model and stub.pid not in self._dead_before
        ]

    def ignore(self, pids: Iterable[int]) -> None:
        """These are known to end, or to have ended."""
        self._told.update(pids)

    def _stub(self, process: psutil.Process) -> Stub | None:
        known = self._known.get(process.pid)
        return known or _read_stub(process)


def _children(server: int) -> list[tuple[psutil.Process, str]]:
    try:
        children = psutil.Process(server).children()
    except psutil.Error:  # the server has ended
        return []
    states: list[tuple[psutil.Process, str]] = []
    for child in children:
        try:
            states.append((child, child.status()))
        except psutil.Error:
            continue
    return states


def _is_stub_by_name(process: psutil.Process) -> bool:
    """What is left to know of a process that has ended; the system keeps 15 letters."""
    try:
        return process.name().startswith(PROGRAM[:15])
    except psutil.Error:
        return False


def _read_stub(process: psutil.Process) -> Stub | None:
    """From its arguments: program, model.py, ..., name of the instance, DEFAULT."""
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return None
    if len(arguments) < 4 or not arguments[0].endswith(PROGRAM):
        return None
    instance = arguments[-2]
    return Stub(process.pid, instance.rsplit("_", 2)[0], instance)

"""Steps of a running server that have ended, stand still or hang: their processes are killed, the model is reloaded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ServerError
from deploy.processes import kill
from deploy.supervision.health import Health
from deploy.supervision.loading import Loading
from deploy.supervision.repairs import reload
from deploy.supervision.shared_memory import MUCH, large_regions, mapped, region_bytes
from deploy.supervision.stalls import Stalls, Work
from deploy.supervision.stubs import StubWatch

if TYPE_CHECKING:
    from deploy.server import TritonServer


GIVE_BACK_S = 60.0  # between two reloads of a step for its memory: whoever sends such requests sends more


class Mending:
    """Looks after the Python steps of one server."""

    def __init__(
        self,
        server: TritonServer,
        repository: Path,
        loading: Loading,
        stalls: Stalls,
        *,
        tell: Callable[..., None],
        health: Health,
        timeout_s: float,
    ) -> None:
        """Begin with a server that runs; `timeout_s` is how long it is waited for where no model is loaded."""
        self._control = server.control(timeout_s=timeout_s)
        self._repository = repository
        self._loading = loading
        self._stalls = stalls
        self._tell = tell
        self._health = health
        self._stubs = StubWatch(server.pid)
        self._stubs.look()  # to know them, should one die at once
        self._gave_back_s: dict[str, float] = {}

    def mend_stubs(self) -> bool:
        """Reload the models of which a process has ended or stands still; False where the server has to start anew."""
        look = self._stubs.look()
        for stub in look.stopped:
            said = f"Process {stub.pid} of {stub.instance} stands still and is killed."
            self._tell("stub_stopped", said, pid=stub.pid)
            kill(stub.pid)
        if look.unknown:
            self._tell(
                "stub_unknown", f"Process {look.unknown[0]} of a step has ended as it began; all start anew."
            )
            return False
        for model in sorted({stub.model for stub in [*look.dead, *look.stopped]}):
            processes = [stub.pid for stub in [*look.dead, *look.stopped] if stub.model == model]
            self._reload_broken(
                model, f"process {' and '.join(map(str, processes))} of {model} has ended", processes
            )
        return True

    def mend_stalls(self, work: Mapping[str, Work]) -> None:
        """Reload the models at which requests wait and nothing is done."""
        for model in self._stalls.look(work, now_s=time.monotonic()):
            processes = [stub.pid for stub in self._stubs.of(model)]
            for pid in processes:
                kill(pid)
            self._reload_broken(
                model, f"requests wait for {model} and none has been done for seconds", processes
            )

    def give_back(self) -> None:
        """Reload the steps that hold far more shared memory than full batches take; Triton never makes it less.

        A single request of 300 MB would be held for good. The old processes answer until the new ones do.
        """
        regions = large_regions()
        if not regions:
            return
        for model, stubs in self._stubs.by_model().items():
            held = sum(mapped(stub.pid, regions) for stub in stubs)
            now_s = time.monotonic()
            if not held or now_s < self._gave_back_s.get(model, -GIVE_BACK_S) + GIVE_BACK_S:
                continue
            if held > region_bytes(self._repository, [model])[1] + MUCH:
                self._gave_back_s[model] = now_s
                said = f"{model} holds {held >> 20} MiB of shared memory since a request of that size"
                if not os.access(self._repository / model, os.W_OK):  # it would be unloaded first
                    self._tell("memory_held", f"{said}; the repository cannot be written.", model=model)
                    continue
                self._tell("memory_held", f"{said}; it is reloaded.", model=model)
                self._reload(model, [stub.pid for stub in stubs])

    def _reload_broken(self, model: str, reason: str, processes: list[int]) -> None:
        self._health.fault(model, reason)
        self._tell(
            "model_broken", f"{reason[0].upper()}{reason[1:]}; it is reloaded.", model=model, pids=processes
        )
        self._reload(model, processes)

    def _reload(self, model: str, processes: list[int]) -> None:
        began_s = time.monotonic()
        try:
            with self._health.busy():
                reload(self._control, self._repository, model)
        except ServerError as error:
            self._loading.failed(model, error.message)
            return
        finally:
            self._stubs.ignore(processes)
        self._stubs.look()
        self._health.mended(model)
        seconds = time.monotonic() - began_s
        self._tell(
            "model_reloaded",
            f"{model} was reloaded in {seconds:.1f} s.",
            model=model,
            seconds=round(seconds, 3),
        )


def let_go(server: TritonServer) -> None:
    """Kill the orphans of a server as soon as it has ended.

    They hold its connections open: who waits for its answer, clients and this loop, would wait on.
    """
    server.wait()
    server.kill_group()

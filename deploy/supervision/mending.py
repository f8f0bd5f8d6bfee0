"""Steps of a running server that have ended, stand still or hang: their processes are killed, the model is reloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ServerError
from deploy.processes import kill
from deploy.supervision.health import Health
from deploy.supervision.loading import Loading
from deploy.supervision.repairs import reload
from deploy.supervision.stalls import Stalls, Work
from deploy.supervision.stubs import StubWatch

if TYPE_CHECKING:
    from deploy.server import TritonServer


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
            self._reload(
                model, f"process {' and '.join(map(str, processes))} of {model} has ended", processes
            )
        return True

    def mend_stalls(self, work: Mapping[str, Work]) -> None:
        """Reload the models at which requests wait and nothing is done."""
        for model in self._stalls.look(work, now_s=time.monotonic()):
            processes = [stub.pid for stub in self._stubs.of(model)]
            for pid in processes:
                kill(pid)
            self._reload(model, f"requests wait for {model} and none has been done for seconds", processes)

    def _reload(self, model: str, reason: str, processes: list[int]) -> None:
        self._health.fault(model, reason)
        self._tell(
            "model_broken", f"{reason[0].upper()}{reason[1:]}; it is reloaded.", model=model, pids=processes
        )
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

"""The one loop that looks after a server.

It runs in a thread of its own. A server that it starts ends with that thread, which therefore lives until the server
has been stopped. A turn looks and mends, one thing after the other. What the next server needs lies in `State`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ServerError, SilentError
from deploy.lazy_loading import CategoryLimit, Janitor
from deploy.processes import ending
from deploy.supervision.events import Events
from deploy.supervision.grpc_probe import grpc_answers
from deploy.supervision.hangs import HANGS, Hangs
from deploy.supervision.health import Health
from deploy.supervision.inference_probe import inference_answers
from deploy.supervision.loading import Loading
from deploy.supervision.log_pump import LogWatch
from deploy.supervision.mending import Mending, let_go
from deploy.supervision.presence import Presence
from deploy.supervision.stalls import Stalls, read_work
from deploy.supervision.starting import next_server, wait_for
from deploy.supervision.state import Index, State

if TYPE_CHECKING:
    from deploy.server import TritonServer

TURN_S = 0.1  # a server that has died is seen within this
LOOK_S = 0.5  # and all else within two of these
LATER_S = 1.0  # after a look that failed
ANSWER_S = 5.0
SILENT_S = 10.0  # a server that answers nothing for so long is killed


class Supervisor:
    """Looks after a server for the length of a `with` block, and stops it at the end.

    Attributes:
        server: the one that runs now.
        control: its model control.
        state: what the next one would be started with.
        health: whether all of it serves.
        health_url: where this is answered over HTTP; None where it is not.
    """

    health_url: str | None = None

    def __init__(
        self,
        server: TritonServer,
        repository: Path,
        *,
        start: Callable[..., TritonServer] | None = None,
        state: State | None = None,
        limit: CategoryLimit | None = None,
        events: Events | None = None,
        health: Health | None = None,
        grace_s: float = 10,
    ) -> None:
        """Look after a server that is ready.

        Args:
            server: the first one.
            repository: what it serves.
            start: starts the next one, see `deploy.server.launcher`. None: nothing is mended and the server is not
                stopped at the end; only categories are unloaded.
            state: with what it was started.
            limit: how many categories stay in memory; None is all.
            events: where it tells what it does.
            health: who else asks for it.
            grace_s: seconds for what is in flight when the server is stopped.
        """
        self.server = server
        self.state = state or State(set())
        self.health = health or Health()
        self._repository = repository
        self._start = start
        self._limit = limit
        self._tell = (events or Events(None)).tell
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._log = LogWatch(self._tell)
        self._next_look_s = 0.0
        self._presence = Presence(repository, self.state.wanted, tell=self._tell)
        self._stalls = Stalls()
        self._restarted: tuple[float, float] | None = None
        self._watch_server()
        self.health.mended("server")
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server and the loop; nothing where they have been."""
        if self._stopped.is_set():
            return
        with self._starting:  # no server is started any more
            self._stopping.set()
        self.health.fault("stopping", "the server is being stopped")
        if self._start is not None:
            self.server.stop(grace_s=self._grace_s)
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        self.health.beat(self.state.retries.left_out())
        try:
            while not self._stopping.wait(TURN_S):
                try:
                    self._turn()
                except Exception as error:  # a fault of our own, too: the server has to be looked after
                    with contextlib.suppress(Exception):  # the next turn tells
                        self._failed(error)
        finally:
            self.health.fault("supervisor", "the supervisor has ended")
        self._stopped.wait()

    def _turn(self) -> None:
        if self.server.exit_code is not None:
            if self._start is not None:
                self._restart()
            return
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        index = self._ask()
        self._answered_s = now_s
        if self._presence.away:
            self.health.beat(self.state.retries.left_out())
            return
        try:
            self._mend(index, now_s=now_s)
        finally:
            self._answered_s = time.monotonic()  # what the turn took was not the server's silence

    def _ask(self) -> Index:
        """The server's index; an empty one where it has none because its repository is away.

        Raises:
            ServerError: the server answers with another error.
            SilentError: it does not answer, over HTTP or gRPC.
        """
        away = self._start is not None and self._presence.is_away()
        try:
            index = self.control.index()
        except ServerError as error:
            if not away or isinstance(error, SilentError):
                raise
            index = []
        if not grpc_answers(self.server.grpc_url, within_s=ANSWER_S):
            raise SilentError(f"tritonserver at {self.server.grpc_url} does not answer over gRPC.")
        return index

    def _mend(self, index: Index, *, now_s: float) -> None:
        """Mend what is found in a server that answers."""
        if self._start is not None:
            self.state.follow(index, self._presence.published)
            self._see_whether_it_serves(index)
            if not self._mending.mend_stubs():
                self._kill()
                return
            work = read_work(self.control, self.server.metrics_url)
            self._mending.mend_stalls(work)
            self._mending.give_back()
            loading = "LOADING" in {entry.get("state") for entry in index}
            if self._hangs.look(self._stalls.remembered(work), loading=loading, now_s=now_s):
                self._tell("server_hangs", HANGS)
                self._kill()
                return
            self._loading.look(index)
            self._log.look(self.server)
        if self._janitor is not None:
            self._janitor.tidy(now_s=time.time(), probed_s=self._hangs.probed_s)
        self.health.beat(self.state.retries.left_out())
        self._told = False

    def _failed(self, error: Exception) -> None:
        """A turn ended early. Only a server that gives no answer at all is killed; the next looks show all else.

        Somebody else unloaded a model meanwhile, say, or the server is ending, or we have no descriptors left.
        """
        if self._stopping.is_set() or self.server.exit_code is not None:
            return
        now_s = time.monotonic()
        self._next_look_s = now_s + LATER_S
        if not isinstance(error, SilentError):
            self._answered_s = now_s
        if isinstance(error, ServerError) and not isinstance(error, SilentError):
            self.health.beat(self.state.retries.left_out())
        if not self._told:
            self._told = True
            reason = error.message if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
            self._tell("not_answered", f"Supervisor: {reason}")
        if self._start is not None and now_s - self._answered_s > SILENT_S:
            self._tell("server_hangs", f"tritonserver has not answered for {SILENT_S:.0f} s and is killed.")
            self._kill()

    def _kill(self) -> None:
        self._killed = True
        self.server.kill()

    def _watch_server(self) -> None:
        """Begin with the server that runs now."""
        self.control = self.server.control(timeout_s=ANSWER_S)
        ask = functools.partial(
            inference_answers, self.server.grpc_url, self.server.http_url, repository=self._repository
        )
        self._hangs = Hangs(ask, self._repository)
        threading.Thread(target=let_go, args=(self.server,), name="orphans", daemon=True).start()
        self._janitor = Janitor(self.server.control(), self._limit, tell=self._tell) if self._limit else None
        self._loading = Loading(
            self.server,
            self._repository,
            self.state,
            tell=self._tell,
            health=self.health,
            stopping=self._stopping.is_set,
        )
        self._killed = False
        self._stalls.begin()
        self._mending = Mending(
            self.server,
            self._repository,
            self._loading,
            self._stalls,
            tell=self._tell,
            health=self.health,
            timeout_s=ANSWER_S,
        )
        self._ready_s = self._answered_s = time.monotonic()
        self._told = False

    def _restart(self) -> None:
        """Start a server in place of the one that has ended; again and again, until one is there or we are to stop."""
        self.health.fault("server", "the server has ended and is being started again")
        ended_s = time.monotonic()
        self.state.deaths += 1
        how = "was killed" if self._killed else f"ended by itself ({ending(self.server.exit_code)})"
        self._tell(
            "server_died",
            f"tritonserver {how} and is started again; see {self.server.log}.",
            exit_code=self.server.exit_code,
            deaths=self.state.deaths,
        )
        self.server.kill()  # its orphans
        served_s: float | None = ended_s - self._ready_s
        while not self._stopping.wait(delay_s := self.state.restarts.next_delay_s(served_s=served_s)):
            self.health.beat(self.state.retries.left_out())
            while self._presence.is_away() and not self._stopping.wait(LATER_S):
                self.health.beat(self.state.retries.left_out())
            if self._start_once():
                self._watch_server()
                self.health.fault("server", "the server was started again, and nothing serves yet")
                self._restarted, self._next_look_s = (ended_s, delay_s), 0.0
                return
            served_s = None

    def _given_up(self) -> bool:
        self.health.beat(self.state.retries.left_out())  # a server that is waited for is no sign of our death
        return self._stopping.is_set()

    def _see_whether_it_serves(self, index: Index) -> None:
        """Tell that a server that was started again serves, as soon as something does that is wanted."""
        if self._restarted is None or not self.state.serves(index):
            return
        (ended_s, waited_s), self._restarted = self._restarted, None
        seconds = time.monotonic() - ended_s
        self.health.mended("server")
        self._tell(
            "server_ready",
            f"tritonserver (process {self.server.pid}) serves again after {seconds:.1f} s.",
            seconds=round(seconds, 3),
            waited_s=waited_s,
        )

    def _start_once(self) -> bool:
        with self._starting:
            if self._start is None or self._stopping.is_set():
                return False
            server = next_server(self._start, self.state, self._repository, self._tell)
            if server is None:
                return False
            self.server = server
        return wait_for(server, self.state, self._tell, given_up=self._given_up)

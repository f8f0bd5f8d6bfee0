"""Models of a running server that do not load: counted, told, tried again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ServerError
from deploy.model_state import causes, model_states
from deploy.repository import ensemble_steps
from deploy.server_log import one_line
from deploy.supervision.health import Health
from deploy.supervision.retries import TRIES
from deploy.supervision.state import Index, State, not_answering, states_of

if TYPE_CHECKING:
    from deploy.server import TritonServer

ENDING_S = 1.0


class Loading:
    """Sees to it that what is wanted is loaded into one server."""

    def __init__(
        self,
        server: TritonServer,
        repository: Path,
        state: State,
        *,
        tell: Callable[..., None],
        health: Health,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin with a server that has just tried to load what `state` wants.

        As soon as `stopping` says that it is being stopped, it is no news that a model does not load.
        """
        self._server = server
        self._control = server.control()
        self._repository = repository
        self._state = state
        self._tell = tell
        self._health = health
        self._stopping = stopping
        self._first = True
        self._tried = set(server.started_with)

    def look(self, index: Index) -> None:
        """Count what did not load, tell what loads again, and try one model that was not yet or is due.

        Raises:
            ServerError: the server does not answer.
        """
        retries = self._state.retries
        ready = [name for name, states in states_of(index).items() if "READY" in states]
        for model in retries.loaded(ready):
            self._health.mended(model)
            self._tell("model_loaded", f"Model {model} is loaded after all.", model=model)
        left_out = set(retries.left_out())
        wanted = self._state.wanted - left_out - self._over(left_out)
        missing = not_answering(index, wanted)
        untried = [name for name in missing if name not in self._tried]
        if untried:  # one at a time: what is loaded answers meanwhile
            self._tried.add(untried[0])
            self._load(untried[0])
            return
        states = model_states(missing, index, self._server.log_text()) if missing else []
        for cause in causes(states):
            if self._first or cause.name not in retries.failures:
                self.failed(cause.name, cause.reason)
        self._first = False
        if (due := retries.due(now_s=time.monotonic())) is not None:
            self._load(due)

    def failed(self, model: str, reason: str) -> None:
        """A model could not be loaded: it is tried again, and after the third time left out for a while."""
        if self._stopping():
            return
        reason = one_line(reason)
        failure = self._state.retries.failed(model, reason, now_s=time.monotonic())
        wait_s = failure.next_s - time.monotonic()
        if not failure.left_out:
            self._health.fault(model, f"{model} did not load: {reason}")
            self._tell(
                "model_failed",
                f"Model {model} did not load (try {failure.tries} of {TRIES}): {reason}.",
                model=model,
                tries=failure.tries,
            )
            return
        self._health.mended(model)
        self._tell(
            "model_left_out",
            f"Model {model} is left out, and the others serve: it did not load {failure.tries} times: "
            f"{reason}. It is tried again in {wait_s:.0f} s.",
            model=model,
            tries=failure.tries,
        )

    def _over(self, steps: set[str]) -> set[str]:
        """The wanted ensembles that use one of these steps."""
        if not steps:
            return set()
        return {
            name for name in self._state.wanted if steps.intersection(ensemble_steps(self._repository, name))
        }

    def _load(self, model: str) -> None:
        try:
            with self._health.busy():
                self._control.load(model)
        except ServerError as error:
            if self._stopping():
                return
            if self._has_died():  # of this model, or for another reason: the third time tells
                if self._state.retries.killed_the_server([model], error.message, now_s=time.monotonic()):
                    self._tell(
                        "model_left_out",
                        f"Model {model} is left out: the server died each time that it loaded it. It is tried again "
                        "when somebody loads it.",
                        model=model,
                    )
            else:
                self.failed(model, error.message)
            return
        for ensemble in sorted(self._over({model})):
            with contextlib.suppress(ServerError), self._health.busy():  # the next look tells
                self._control.load(ensemble)

    def _has_died(self) -> bool:
        deadline_s = time.monotonic() + ENDING_S
        while self._server.exit_code is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self._server.exit_code is not None

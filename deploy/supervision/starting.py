"""Start servers, the first one and the next, and find out which models they died of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ServerError, UserError
from deploy.repository import ENCODED, ensemble_steps, settle
from deploy.server_log import being_loaded
from deploy.supervision.retries import TRIES
from deploy.supervision.state import State

if TYPE_CHECKING:
    from deploy.server import TritonServer

Start = Callable[..., "TritonServer"]
Tell = Callable[..., None]


def first_start(
    start: Start, state: State, repository: Path, tell: Tell, *, beat: Callable[[], None] = lambda: None
) -> TritonServer:
    """The first server, of which at least one category is ready; each start that failed is told.

    A model that it dies of three times is left out. A start that takes too long is tried once more. `beat` is called
    all the time while a server is waited for.

    Raises:
        ServerError: no server can be started, or it serves nothing.
    """

    def waiting() -> bool:
        beat()
        return False

    hung = 0
    while True:
        server = start(models_to_start(state, repository))
        opened = False
        try:
            server.wait_until_open(waiting)
            opened = True
            if not serves_something(server):
                server.wait_until_ready()
        except ServerError as error:
            died = server.exit_code is not None
            server.kill()
            hung += not died
            suspects = being_loaded(server.log_text()) if died else []
            if not suspects and (died or opened or hung > 1):
                raise
            tell("start_failed", error.message if died else f"{error.message} It is tried once more.")
            note_failed_start(server, error, state, tell, suspects=suspects)
            if not models_to_start(state, repository):
                raise
        except BaseException:
            server.kill()
            raise
        else:
            return server


def next_server(start: Start, state: State, repository: Path, tell: Tell) -> TritonServer | None:
    """Start the next server, and do not wait for it; None, and told, where it cannot be started.

    Steps that no ensemble uses are loaded when it serves (`Loading`), so that it serves sooner. What a killed command
    left in the repository is put right before, as before the first server, where no other command is at work there.
    """
    try:
        for line in settle(repository, wait_s=0.0):
            tell("repository_settled", line)
    except Exception as error:  # whatever it is: what was served can be served again
        tell("repository_unsettled", f"What a killed command may have left is not put right: {error}")
    try:
        return start(used_models(models_to_start(state, repository), repository), again=True)
    except (UserError, OSError, RuntimeError) as error:  # no thread can be started, say
        tell("start_failed", f"tritonserver cannot be started: {error}")
        return None


def wait_for(server: TritonServer, state: State, tell: Tell, *, given_up: Callable[[], bool]) -> bool:
    """Whether a server opens; where it does not it is killed, and what it died of is noted."""
    try:
        server.wait_until_open(given_up)
    except ServerError as error:
        server.kill()
        tell("start_failed", error.message)
        note_failed_start(server, error, state, tell, suspects=being_loaded(server.log_text()))
        return False
    return not given_up()


def models_to_start(state: State, repository: Path) -> list[str]:
    """What is wanted, without what is left out and the ensembles over it, which would load it."""
    left_out = set(state.retries.left_out())
    return [
        model for model in state.to_start() if not left_out.intersection(ensemble_steps(repository, model))
    ]


def used_models(models: list[str], repository: Path) -> list[str]:
    """The ensembles among the models, and their steps; all of them where there are no ensembles."""
    steps_of = {model: ensemble_steps(repository, model) for model in models}
    used = {name for ensemble, steps in steps_of.items() if steps for name in (ensemble, *steps)}
    return [model for model in models if model in used or not used]


def note_failed_start(
    server: TritonServer, error: ServerError, state: State, tell: Tell, *, suspects: list[str]
) -> None:
    """Count a start against the models that were being loaded when it failed, the `suspects`."""
    for model in state.retries.killed_the_server(suspects, error.message, now_s=time.monotonic()):
        tell(
            "model_left_out",
            f"Model {model} is left out: {TRIES} starts ended while it was being loaded; see {server.log}.",
            model=model,
        )


def serves_something(server: TritonServer) -> bool:
    """Whether a category answers; in a repository without any, whether a model does."""
    states = {model.name: model.state for model in server.models()}
    categories = [name for name in states if name + ENCODED in states]
    return any(states[name] == "READY" for name in categories or states)

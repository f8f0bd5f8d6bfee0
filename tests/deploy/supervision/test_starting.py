from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import ServerError
from deploy.model_state import ModelState
from deploy.supervision.starting import first_start
from deploy.supervision.state import State

LOADING = 'I1123 20:42:08.006364 5026 model_lifecycle.cc:472] "loading: pill:1"\n'


class Server:
    """A server whose start ends as `outcome` says: None, its exit code, or "hangs"."""

    log = Path("log")

    def __init__(self, outcome: int | str | None) -> None:
        self.outcome = outcome
        self.exit_code = outcome if isinstance(outcome, int) else None

    def wait_until_open(self) -> None:
        if self.outcome is not None:
            raise ServerError(f"tritonserver: {self.outcome}.")

    def models(self) -> list[ModelState]:
        return [ModelState("pill", (1,), "READY", "", None)]

    def log_text(self) -> str:
        return LOADING

    def kill(self) -> None:
        self.outcome = "killed"


def start_with(outcomes: list[int | str | None], root: Path) -> tuple[Server, list[str], State]:
    servers = [Server(outcome) for outcome in outcomes]
    told: list[str] = []
    state = State({"pill", "nut"})
    waiting = iter(servers)
    server = first_start(
        lambda _: next(waiting),  # type: ignore[arg-type,return-value]
        state,
        root,
        lambda event, message, **_: told.append(f"{event}: {message}"),
    )
    return server, told, state  # type: ignore[return-value]


def test_each_first_start_that_fails_is_told(tmp_path: Path) -> None:
    _, told, state = start_with([-9, -9, None], tmp_path)
    assert told == ["start_failed: tritonserver: -9."] * 2
    assert state.retries.loaded(["pill"]) == []  # nobody was told that it does not load


def test_a_first_start_that_hangs_is_tried_once_more(tmp_path: Path) -> None:
    server, told, _ = start_with(["hangs", None], tmp_path)
    assert server.outcome is None
    assert told == ["start_failed: tritonserver: hangs. It is tried once more."]
    with pytest.raises(ServerError, match="hangs"):
        start_with(["hangs", "hangs", None], tmp_path)

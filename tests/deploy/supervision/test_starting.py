from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.errors import ServerError
from deploy.model_state import ModelState
from deploy.repository import settle
from deploy.supervision import starting
from deploy.supervision.starting import first_start, next_server
from deploy.supervision.state import State
from export.releases.lock import publishing_alone

LOADING = 'I1123 20:42:08.006364 5026 model_lifecycle.cc:472] "loading: pill:1"\n'


class Server:
    """A server whose start ends as `outcome` says: None, its exit code, or "hangs"."""

    log = Path("log")

    def __init__(self, outcome: int | str | None) -> None:
        self.outcome = outcome
        self.exit_code = outcome if isinstance(outcome, int) else None

    def wait_until_open(self, given_up: Callable[[], bool]) -> None:
        assert not given_up()
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
    beats: list[int] = []
    state = State({"pill", "nut"})
    waiting = iter(servers)
    server = first_start(
        lambda _: next(waiting),  # type: ignore[arg-type,return-value]
        state,
        root,
        lambda event, message, **_: told.append(f"{event}: {message}"),
        beat=lambda: beats.append(1),
    )
    assert beats  # the health port says meanwhile that we live
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


def restart(root: Path) -> list[str]:
    """What is told while the next server is started."""
    told: list[str] = []
    tell = lambda event, message, **_: told.append(f"{event}: {message}")  # noqa: E731
    assert next_server(lambda _, again: Server(None), State({"pill"}), root, tell) is not None  # type: ignore[arg-type,return-value]
    return told


def test_what_a_killed_command_left_is_put_right_before_each_server(tmp_path: Path) -> None:
    (tmp_path / ".publisher").touch()
    (told,) = restart(tmp_path)
    assert told.startswith("repository_settled: A command that changed ")
    assert not (tmp_path / ".publisher").exists()
    assert restart(tmp_path) == []


def test_a_server_does_not_wait_for_a_command_that_is_at_work(tmp_path: Path) -> None:
    with publishing_alone(tmp_path):
        began_s = time.monotonic()
        (told,) = settle(tmp_path, wait_s=0.0)
        assert time.monotonic() - began_s < 30
        assert "or is at work, and nothing was put right" in told
        assert (tmp_path / ".publisher").exists()


def test_a_repository_that_cannot_be_put_right_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> list[str]:
        raise ValueError("no JSON")

    monkeypatch.setattr(starting, "settle", breaks)
    (told,) = restart(tmp_path)
    assert told == "repository_unsettled: What a killed command may have left is not put right: no JSON"

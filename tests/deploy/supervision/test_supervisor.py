"""The loop itself, with a server that only seems to be one."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import ServerError, SilentError
from deploy.supervision import supervisor as module
from deploy.supervision.supervisor import Supervisor
from tests.deploy.conftest import comes_true


class Control:
    """Model control of which the index fails as `error` says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.models = [{"name": "pill", "version": "1", "state": "READY"}]
        self.asked = 0

    def index(self) -> list[dict[str, str]]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.models

    def statistics(self) -> list[dict[str, Any]]:
        return []


class Pump:
    dropped, fault = 0, ""


class Server:
    """A server that runs until it is killed."""

    grpc_url, http_url, metrics_url = "127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3/metrics"
    log, pump, started_with = Path("log"), Pump(), ("pill",)

    def __init__(self, control: Control) -> None:
        self.pid = os.getpid()
        self.exit_code: int | None = None
        self.killed = 0
        self._control = control
        self._ended = threading.Event()

    def control(self, **_: object) -> Control:
        return self._control

    def log_text(self) -> str:
        return ""

    def wait(self) -> None:
        self._ended.wait()

    def kill_group(self) -> None:
        pass

    def kill(self) -> None:
        self.killed += 1
        self.exit_code = -9
        self._ended.set()

    def stop(self, *, grace_s: float) -> None:
        self.exit_code = 0
        self._ended.set()

    def wait_until_open(self, given_up: object) -> None:
        pass


class Told:
    """Events: their kinds and messages."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[str] = []

    def tell(self, event: str, message: str, **_: object) -> None:
        self.events.append(event)
        self.messages.append(message)


class Scene:
    """A supervisor with its server, which are not started."""

    def __init__(self, root: Path) -> None:
        self.repository = root / "models"
        (self.repository / "pill").mkdir(parents=True)
        (self.repository / "pill" / "config.pbtxt").write_text("")
        self.control, self.told, self.started = Control(), Told(), list[list[str]]()
        self.server = Server(self.control)
        self.supervisor = Supervisor(
            self.server,  # type: ignore[arg-type]
            self.repository,
            start=self.start,  # type: ignore[arg-type]
            state=module.State({"pill"}),
            events=self.told,  # type: ignore[arg-type]
        )

    def start(self, models: list[str], **_: object) -> Server:
        self.started.append(models)
        return Server(self.control)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name in ("TURN_S", "LOOK_S", "LATER_S"):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    monkeypatch.setattr(module, "grpc_answers", lambda *_, **__: True)
    monkeypatch.setattr(module, "read_work", lambda *_: {})
    return Scene(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        ServerError("tritonserver answered: failed to open directory."),
    ],
)
def test_a_server_is_not_killed_for_a_fault_of_our_own_or_an_answer(scene: Scene, error: Exception) -> None:
    scene.control.error = error
    with scene.supervisor:
        assert comes_true(lambda: scene.control.asked > 30, within_s=10)
    assert scene.server.killed == 0
    assert scene.told.events == ["not_answered"]


def test_a_server_that_gives_no_answer_is_killed(scene: Scene) -> None:
    scene.control.error = SilentError("does not answer (timed out).")
    with scene.supervisor:
        assert comes_true(lambda: bool(scene.started), within_s=10)
    assert scene.told.messages[2] == "tritonserver was killed and is started again; see log."


def test_the_loop_outlives_a_fault_in_what_it_does_about_faults(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(error: Exception) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(scene.supervisor, "_failed", breaks)
    scene.control.error = ServerError("a fault")
    with scene.supervisor:
        assert comes_true(lambda: scene.control.asked > 2, within_s=10)
        scene.control.error = None
        assert comes_true(lambda: scene.supervisor.health.ready()[0], within_s=10)


def test_nothing_is_killed_or_started_while_the_repository_is_away(scene: Scene) -> None:
    elsewhere = scene.repository.with_name("elsewhere")
    with scene.supervisor as supervisor:
        scene.repository.rename(elsewhere)
        scene.control.error = ServerError("tritonserver answered: failed to open directory.")
        asked = scene.control.asked
        assert comes_true(lambda: scene.control.asked > asked + 30, within_s=10)
        assert scene.server.killed == 0
        assert supervisor.health.ready()[0]  # it judges
        assert supervisor.state.wanted == {"pill"}
        scene.server.kill()
        assert not comes_true(lambda: bool(scene.started), within_s=0.3)
        assert not supervisor.health.ready()[0]
        scene.control.error = None
        elsewhere.rename(scene.repository)
        assert comes_true(lambda: supervisor.health.ready()[0], within_s=10)
        assert scene.started == [["pill"]]
    assert scene.told.events == ["repository_away", "server_died", "repository_back", "server_ready"]


def test_a_server_of_which_nothing_serves_is_not_ready(scene: Scene) -> None:
    with scene.supervisor as supervisor:
        scene.control.models = [{"name": "pill", "version": "1", "state": "LOADING"}]
        scene.server.kill()
        assert comes_true(lambda: bool(scene.started), within_s=10)
        assert not comes_true(lambda: supervisor.health.ready()[0], within_s=0.3)
        assert "server_ready" not in scene.told.events
        scene.control.models = [{"name": "pill", "version": "1", "state": "READY"}]
        assert comes_true(lambda: supervisor.health.ready()[0], within_s=10)
    assert scene.told.events == ["server_died", "server_ready"]


def test_what_does_not_load_because_the_server_is_stopped_is_no_news(scene: Scene) -> None:
    with scene.supervisor as supervisor:
        pass
    supervisor._loading.failed("pill", "Connection refused")
    assert scene.told.events == []
    assert supervisor.state.retries.failures == {}

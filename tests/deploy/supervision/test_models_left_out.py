"""A model that does not load is left out after three tries, and the others serve: with a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploy.errors import ServerError
from deploy.supervision import retries
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from tests.deploy.conftest import add_model, comes_true
from tests.deploy.supervision.conftest import events_of

pytestmark = pytest.mark.triton


def states(supervisor: Supervisor) -> dict[str, str]:
    return {model.name: model.state for model in supervisor.server.models()}


def test_it_is_tried_again_and_comes_back(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SOON_S", (0.2, 0.2))
    monkeypatch.setattr(retries, "LATER_S", 2.0)
    add_model(repository, "broken", initialize="raise ValueError('no calibration')")
    log = tmp_path / "log"
    with supervised_server(repository=repository, log=log) as supervisor:
        assert comes_true(lambda: "broken" in supervisor.state.retries.left_out(), within_s=20)
        assert supervisor.health.ready()[0]
        assert states(supervisor) == {"identity": "READY", "broken": "UNAVAILABLE"}
        code = repository / "broken" / "1" / "model.py"
        code.write_text(code.read_text().replace("raise ValueError('no calibration')", "pass"))
        assert comes_true(lambda: states(supervisor)["broken"] == "READY", within_s=20)
        assert comes_true(lambda: not supervisor.state.retries.left_out(), within_s=5)
    told = [event["event"] for event in events_of(log)]
    assert told[:3] == ["model_failed", "model_failed", "model_left_out"]
    assert told[-1] == "model_loaded"
    message = next(event["message"] for event in events_of(log) if event["event"] == "model_left_out")
    assert "Model broken is left out, and the others serve: it did not load 3 times:" in message
    assert "ValueError: no calibration" in message


def test_a_model_that_kills_the_server_is_left_out_at_the_start(repository: Path, tmp_path: Path) -> None:
    add_model(repository, "killer", initialize="time.sleep(1); os.kill(os.getppid(), 9)")
    log = tmp_path / "log"
    began_s = time.monotonic()
    with supervised_server(repository=repository, log=log) as supervisor:
        print(f"\na model that kills the server: the others serve after {time.monotonic() - began_s:.1f} s")
        assert supervisor.server.started_with == ["identity"]
        assert supervisor.server.models()[0].state == "READY"
    messages = [event["message"] for event in events_of(log) if event["event"] != "start_failed"]
    assert len(events_of(log)) == 3 + 1
    assert messages == [f"Model killer is left out: 3 starts ended while it was being loaded; see {log}."]


def test_a_server_that_serves_nothing_is_an_error(tmp_path: Path) -> None:
    repository = add_model(tmp_path / "models", "broken", initialize="raise ValueError('no calibration')")
    log = tmp_path / "log"
    with (
        pytest.raises(ServerError, match=r"model broken did not load: .*no calibration"),
        supervised_server(repository=repository, log=log),
    ):
        pytest.fail("a server that serves nothing is given out")


def test_what_was_unloaded_stays_so(repository: Path, tmp_path: Path) -> None:
    """And what was loaded comes back, when the server is started again."""
    add_model(repository, "other")
    with supervised_server(repository=repository, log=tmp_path / "log") as supervisor:
        add_model(repository, "new")
        dead, control = supervisor.server, supervisor.control
        control.unload("other")
        control.load("new")
        assert comes_true(lambda: supervisor.state.wanted == {"identity", "new"}, within_s=5)
        dead.kill_group()
        assert comes_true(lambda: supervisor.server is not dead, within_s=5)
        assert supervisor.server.started_with == ["identity", "new"]

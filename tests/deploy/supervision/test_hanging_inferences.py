"""A real server whose inferences do not end, while nothing waits and all else answers."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import pytest

from deploy.supervision import hangs
from deploy.supervision.inference_probe import http_answers, inference_answers
from deploy.supervision.stalls import read_work
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.deploy.supervision.conftest import events_of
from tests.products import ROOT

pytestmark = pytest.mark.triton

ENSEMBLE = f"{CATEGORY}_encoded"


def answered(supervisor: Supervisor) -> int:
    return read_work(supervisor.control, supervisor.server.metrics_url)[ENSEMBLE].answered


def test_it_is_asked_when_nobody_asks_and_killed_when_it_does_not_answer(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes of a backbone wait for a lock that never comes, with a probe each: no queue is filled."""
    for name, value in (("QUIET_S", 1.0), ("ANSWER_S", 2.0), ("SLOWER", 1)):
        monkeypatch.setattr(hangs, name, value)
    log = tmp_path / "log"
    with supervised_server(
        repository=published, log=log, triton_env=ROOT / ".triton", max_categories=1
    ) as supervisor:
        server = supervisor.server
        assert inference_answers(server.grpc_url, server.http_url, ENSEMBLE, 20)
        assert http_answers(server.http_url, ENSEMBLE, within_s=20)
        assert answered(supervisor) == 2  # verdicts, no errors
        assert inference_answers(server.grpc_url, server.http_url, "nothing_encoded", 20)
        assert comes_true(lambda: answered(supervisor) > 3, within_s=20)  # of its own
        assert supervisor._janitor is not None
        assert supervisor._janitor._used_s[CATEGORY] < supervisor._hangs.probed_s[CATEGORY][0]  # no use of it
        with server.turns.open("a") as turns:
            fcntl.flock(turns, fcntl.LOCK_EX)
            began_s = time.monotonic()
            assert comes_true(lambda: supervisor.server is not server, within_s=60)
            print(f"\ninferences hang: another server after {time.monotonic() - began_s:.1f} s")
        assert comes_true(lambda: supervisor.health.ready()[0], within_s=30)
        server = supervisor.server
        assert inference_answers(server.grpc_url, server.http_url, ENSEMBLE, 20)
    assert [event["event"] for event in events_of(log)][:3] == ["server_hangs", "server_died", "server_ready"]

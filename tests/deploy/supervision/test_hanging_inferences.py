"""A real server whose inferences do not end, while nothing waits and all else answers."""

from __future__ import annotations

import fcntl
import re
import time
import urllib.request
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from deploy.supervision import hangs
from deploy.supervision.inference_probe import http_answers, inference_answers, probe_picture
from deploy.supervision.stalls import read_work
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from model_repository.distance_fusion.verdict_metrics import EVERY_S
from tests.asking import ask
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.deploy.supervision.conftest import events_of
from tests.products import ROOT

pytestmark = pytest.mark.triton

ENSEMBLE = f"{CATEGORY}_encoded"


def answered(supervisor: Supervisor) -> int:
    return read_work(supervisor.control, supervisor.server.metrics_url)[ENSEMBLE].answered


def counted(supervisor: Supervisor) -> dict[str, float]:
    """Parts by the server's metrics: how many were inspected, and how many are in the histogram of scores."""
    with urllib.request.urlopen(str(supervisor.server.metrics_url)) as response:
        text = response.read().decode()
    series = rf'^astmfr_(inspected_total|rejected_total|score_count)\{{category="{CATEGORY}".*\}} (\S+)$'
    found = {name: float(value) for name, value in re.findall(series, text, re.MULTILINE)}
    return {name: found.get(name, 0) for name in ("inspected_total", "rejected_total", "score_count")}


def only_parts_are_counted(supervisor: Supervisor) -> None:
    """None of the inferences until now was of a part, and one is that a client sends."""
    asked = answered(supervisor)
    time.sleep(3 * EVERY_S)
    assert asked > 3
    assert counted(supervisor) == {"inspected_total": 0, "rejected_total": 0, "score_count": 0}
    with grpcclient.InferenceServerClient(supervisor.server.grpc_url) as client:
        assert ask(client, CATEGORY).status == "answered"
    assert comes_true(lambda: counted(supervisor)["score_count"] == 1, within_s=10)
    assert counted(supervisor)["inspected_total"] == 1
    assert comes_true(lambda: answered(supervisor) > asked + 1, within_s=20)  # asked by itself again
    time.sleep(3 * EVERY_S)
    assert counted(supervisor)["inspected_total"] == counted(supervisor)["score_count"] == 1


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
        assert http_answers(server.http_url, ENSEMBLE, probe_picture(None, ENSEMBLE), within_s=20)
        assert answered(supervisor) == 2  # verdicts, no errors
        assert inference_answers(server.grpc_url, server.http_url, "nothing_encoded", 20)
        assert comes_true(lambda: answered(supervisor) > 3, within_s=20)  # of its own
        assert supervisor._janitor is not None
        assert supervisor._janitor._used_s[CATEGORY] < supervisor._hangs.probed_s[CATEGORY][0]  # no use of it
        only_parts_are_counted(supervisor)
        with server.turns.open("a") as turns:
            fcntl.flock(turns, fcntl.LOCK_EX)
            began_s = time.monotonic()
            assert comes_true(lambda: supervisor.server is not server, within_s=60)
            print(f"\ninferences hang: another server after {time.monotonic() - began_s:.1f} s")
        assert comes_true(lambda: supervisor.health.ready()[0], within_s=30)
        server = supervisor.server
        assert inference_answers(server.grpc_url, server.http_url, ENSEMBLE, 20)
    assert [event["event"] for event in events_of(log)][:3] == ["server_hangs", "server_died", "server_ready"]

"""A server as a shard's pod runs it: named categories alone, connections that end, metrics of the supervisor."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from deploy.protection.protection import Protection
from deploy.supervision.supervised import supervised_server
from tests.conftest import CATEGORY
from tests.deploy.supervision.conftest import clients_of
from tests.products import ROOT

pytestmark = pytest.mark.triton


def test_clients_connect_anew_and_notice_nothing(published: Path, tmp_path: Path) -> None:
    with supervised_server(
        repository=published,
        log=tmp_path / "log",
        triton_env=ROOT / ".triton",
        health_port=0,
        category=[CATEGORY],
        protection=Protection(connection_age_s=0.5),
    ) as supervisor:
        assert {model.name for model in supervisor.server.models()} >= {CATEGORY, f"{CATEGORY}_encoded"}
        with clients_of(supervisor, count=2) as clients:
            time.sleep(2)
        assert {answer.status for answer in clients.answers} == {"answered"}
        assert len(clients.answers) > 20
        assert supervisor.health_url is not None
        url = supervisor.health_url.replace("/v2/health/ready", "/metrics")
        with urllib.request.urlopen(url, timeout=5) as response:
            metrics = response.read().decode()
        assert re.search(r"^astmfr_ready 1$", metrics, re.MULTILINE)
        assert re.search(r'^astmfr_events_total\{event="server_died"\} 0$', metrics, re.MULTILINE)
    assert "--grpc-max-connection-age=500 " in (tmp_path / "log").read_text()

from __future__ import annotations

import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.errors import PortError
from deploy.supervision import health as health_module
from deploy.supervision.events import Events, events_path
from deploy.supervision.health import Health, health_endpoint
from tests.deploy.conftest import comes_true


def get(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_is_ready_once_nothing_is_wrong() -> None:
    health = Health()
    with health_endpoint(health, "127.0.0.1", 0) as url:
        assert url is not None
        assert get(url) == (
            503,
            {"ready": False, "faults": {"server": "the server is being started"}, "left_out": {}},
        )
        health.mended("server")
        health.beat({"nut": "no file"})
        assert get(url) == (200, {"ready": True, "faults": {}, "left_out": {"nut": "no file"}})
        assert get(url.replace("ready", "live")) == (200, {"live": True})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.replace("ready", "models"), timeout=5)


def test_it_is_not_ready_when_nobody_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "READY_S", -1.0)
    health = Health()
    health.mended("server")
    assert health.ready()[0] is False
    assert health.ready()[1]["faults"] == {"supervisor": "the supervisor has done nothing for 0 s"}
    with health.busy():  # a large model may be being loaded
        assert health.ready()[0] is True


def test_who_holds_connections_open_takes_nothing_from_others(capfd: pytest.CaptureFixture[str]) -> None:
    health = Health()
    health.mended("server")
    before = threading.active_count()
    with health_endpoint(health, "127.0.0.1", 0) as url, ExitStack() as held:
        assert url is not None
        place = (urlsplit(url).hostname, urlsplit(url).port)
        for _ in range(97):
            held.enter_context(socket.create_connection(place))
        assert get(url + "?verbose=1")[0] == 200
        assert comes_true(
            lambda: threading.active_count() - before <= health_module.MOST_CONNECTIONS + 1, within_s=5
        )
        head = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(head, timeout=5) as response:
            assert (response.status, response.read()) == (200, b"")
        gone = held.enter_context(socket.create_connection(place))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.sendall(b"GET /v2/health/ready HT")
        gone.close()  # reset
        assert get(url)[0] == 200
    assert capfd.readouterr().err == ""


def test_the_address_of_every_address_is_one_to_connect_to() -> None:
    with health_endpoint(Health(), "0.0.0.0", 0) as url:
        assert url is not None
        assert url.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(PortError, match=f"port {port} of 127.0.0.1 .* another with --health-port"),
            health_endpoint(Health(), "127.0.0.1", port),
        ):
            pytest.fail("a taken port is given out")


def test_without_a_port_there_is_none() -> None:
    with health_endpoint(Health(), "127.0.0.1", None) as url:
        assert url is None


def test_logs_whose_names_differ_at_the_end_share_no_events() -> None:
    names = [events_path(Path("logs") / name) for name in ("line.1", "line.2")]
    assert names == [Path("logs/line.1.events.jsonl"), Path("logs/line.2.events.jsonl")]


def test_events_are_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = events_path(tmp_path / "logs" / "tritonserver.log")
    assert path.name == "tritonserver.events.jsonl"
    events = Events(path)
    events.tell("server_died", "It died.", exit_code=-11)
    events.close()
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["event"], line["message"], line["exit_code"]) == ("server_died", "It died.", -11)
    assert capsys.readouterr().err.endswith(" It died.\n")


def test_prometheus_reads_the_same_and_counts_what_was_done() -> None:
    health = Health()
    events = Events(None, counted=health.count)
    events.tell("server_died", "It died.")
    events.tell("server_died", "Again.")
    with health_endpoint(health, "127.0.0.1", 0) as url:
        assert url is not None
        with urllib.request.urlopen(url.replace("/v2/health/ready", "/metrics"), timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            starting = response.read().decode().splitlines()
    assert "astmfr_ready 0" in starting
    assert 'astmfr_fault{what="server"} 1' in starting
    assert 'astmfr_events_total{event="server_died"} 2' in starting
    assert 'astmfr_events_total{event="model_broken"} 0' in starting  # so that the first one is a rise
    health.mended("server")
    health.beat({"nut_student": "no file"})
    serving = health.metrics().splitlines()
    assert "astmfr_ready 1" in serving
    assert 'astmfr_left_out{model="nut_student"} 1' in serving
    assert not any(line.startswith("astmfr_fault{") for line in serving)


def test_a_silent_supervisor_is_no_readiness_for_prometheus_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "READY_S", -1.0)
    health = Health()
    health.mended("server")
    assert {"astmfr_ready 0", 'astmfr_fault{what="supervisor"} 1'} <= set(health.metrics().splitlines())

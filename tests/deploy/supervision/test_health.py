from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy.errors import PortError
from deploy.supervision.events import Events, events_path
from deploy.supervision.health import Health, health_endpoint


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


def test_events_are_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = events_path(tmp_path / "logs" / "tritonserver.log")
    assert path.name == "tritonserver.events.jsonl"
    events = Events(path)
    events.tell("server_died", "It died.", exit_code=-11)
    events.close()
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["event"], line["message"], line["exit_code"]) == ("server_died", "It died.", -11)
    assert capsys.readouterr().err.endswith(" It died.\n")

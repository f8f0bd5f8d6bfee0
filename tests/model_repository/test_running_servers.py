"""A server is known by a lock that ends with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model_repository import running_servers
from model_repository.running_servers import announced, running
from tests.products import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from model_repository.running_servers import announced
with announced(Path(sys.argv[1]), "127.0.0.1:8001"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(running_servers.tempfile, "tempdir", None)
    return tmp_path


def test_servers_are_known_by_their_repository(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with announced(here, "127.0.0.1:8001"), announced(here, "127.0.0.1:9001"), announced(there, "b:1"):
        assert running(here) == ["127.0.0.1:8001", "127.0.0.1:9001"]
        (tmp_path / "link").symlink_to(there)
        assert running(tmp_path / "link") == ["b:1"]
    assert running(here) == []


def test_one_that_was_killed_is_forgotten(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert running(tmp_path) == ["127.0.0.1:8001"]
        holder.send_signal(signal.SIGKILL)
    assert running(tmp_path) == []
    assert not list(tmp_path.glob("astmfr-servers-*/*"))

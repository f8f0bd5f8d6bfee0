"""`up` and `down`: what they hand to the container engine, the keys they make, and what they refuse."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.__main__ import main
from deploy.containers import compose as compose_module
from deploy.containers.compose import COMPOSE, container_user, shared_memory_bytes
from deploy.protection.secrets import NAME, read_admin_key
from deploy.server_options import SHM_BYTES
from deploy.supervision.shared_memory import region_bytes
from model_repository.trace_collector import HEADERS
from tests.deploy.test_server_command import published

__all__ = ["published"]
ENGINE = """#!/bin/sh
echo "$@" > "$TOLD"
env > "$TOLD.env"
exit ${ENDS:-0}
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a container engine that does nothing was told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text(ENGINE)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return tmp_path / "told"


def ask(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_up_builds_and_starts_a_profile(
    published: Path, tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv(HEADERS, "authorization=token")
    done = ask("up", "--repository", published, "--profile", "gpu", "--state", state)
    assert done.exit_code == 0, done.output
    assert told.read_text().split() == [
        *("compose", "--file", str(COMPOSE), "--profile", "gpu", "up", "--build", "--detach")
    ]
    given = dict(line.partition("=")[::2] for line in Path(f"{told}.env").read_text().splitlines())
    assert given["REPOSITORY"] == str(published)
    assert given["STATE"] == str(state)
    assert given[HEADERS] == "authorization=token"
    assert f"{HEADERS}: ${{{HEADERS}?" in COMPOSE.read_text()  # and on to the server
    assert given["SHM_BYTES"] == str(shared_memory_bytes(published))
    assert given["CONTAINER_USER"] == ":".join(map(str, container_user()))
    assert "localhost:8001" in done.output


def test_keys_are_made_once_and_are_their_owners_alone(published: Path, tmp_path: Path, told: Path) -> None:
    state = tmp_path / "state"
    assert ask("up", "--repository", published, "--state", state).exit_code == 0
    key, tokens = state / "admin.key", state / "page.tokens"
    made = key.read_text(), tokens.read_text()
    assert read_admin_key(key)
    assert made[0].startswith(f"{NAME}=")
    assert [line.partition("=")[0] for line in made[1].splitlines()] == ["viewer", "editor"]
    for path in (key, tokens):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (path.stat().st_uid, path.stat().st_gid) == container_user()
    assert ask("up", "--repository", published, "--state", state).exit_code == 0
    assert (key.read_text(), tokens.read_text()) == made
    assert made[0].partition("=")[2].strip() not in told.read_text() + Path(f"{told}.env").read_text()


def test_the_containers_are_never_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert container_user() == (1000, 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 99)
    assert container_user() == (1234, 99)


def test_shared_memory_has_room_for_full_batches_and_growth(published: Path) -> None:
    assert shared_memory_bytes(published) == 64 << 20  # never less than a container has
    config = published / "identity" / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 40"))
    first, full = region_bytes(published, ["identity", "pill", "pill_encoded"])
    assert first == 40 * SHM_BYTES
    assert shared_memory_bytes(published) == max(full, 2 * first)


def test_down_stops_every_profile(told: Path) -> None:
    done = ask("down")
    assert done.exit_code == 0, done.output
    words = told.read_text().split()
    assert words[-1] == "down"
    assert words[words.index("--profile") + 1] == "*"


def test_without_an_engine_or_when_it_fails_one_sentence_says_so(
    published: Path, tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS", "17")
    done = ask("up", "--repository", published, "--state", tmp_path / "state")
    assert done.exit_code == 1
    assert "`docker compose` ended with exit code 17; it says why above" in done.stderr
    monkeypatch.setattr(compose_module, "ENGINES", ("no-such-engine",))
    done = ask("up", "--repository", published, "--state", tmp_path / "other")
    assert done.exit_code == 1
    assert "no container engine is on PATH" in done.stderr
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_served_starts_nothing(tmp_path: Path, told: Path) -> None:
    done = ask("up", "--repository", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
    (tmp_path / "file").write_text("")
    assert not told.exists()


def test_a_state_that_cannot_be_written_is_named(published: Path, tmp_path: Path, told: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ask("up", "--repository", published, "--state", tmp_path / "file")
    assert done.exit_code == 1
    assert "name another folder with --state" in done.stderr
    assert not told.exists()

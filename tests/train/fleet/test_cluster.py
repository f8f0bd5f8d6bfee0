"""A cluster that is not there, Ray that is not installed, and nodes that are too small: one sentence each."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from train.__main__ import main
from train.errors import ConfigError
from train.fleet import address
from train.fleet.address import find_cluster, make_token, require_cluster
from train.fleet.cluster import FleetNode, find_nodes, has_gpus, require_nodes
from train.fleet.plan import Share

TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# What Ray says where a token lacks, or is another.
NO_TOKEN = (
    "Failed to connect. Traceback (most recent call last):\n  File a\n"
    "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: is missing or incorrect."
)


def share(cpus: int = 1, gpus: float = 0.0, memory_gb: float = 1.0) -> Share:
    return Share(cpus=cpus, gpus=gpus, memory_gb=memory_gb, retries=3)


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": f"id-{name}",
        "NodeName": name,
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerHostname": "host",
        "Alive": alive,
        "Resources": {"memory": 8e9, **resources},
    }


def ray_of(*nodes: dict[str, Any]) -> Any:
    return SimpleNamespace(nodes=lambda: list(nodes))


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in TOKENS:  # set first, so that what the code sets is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_cluster_that_is_not_there_is_told(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"127.0.0.1:{closed_port}"
    sentence = (
        f"No Ray cluster answers at {at} \\(.*\\); start one with `ray start --head`, or leave --address out"
    )
    with pytest.raises(
        ConfigError, match="No Ray cluster runs on this machine, and RAY_ADDRESS names none; start"
    ):
        find_cluster("auto")
    with pytest.raises(ConfigError, match=sentence):
        find_cluster(at)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(at)  # of one that was killed
    with pytest.raises(ConfigError, match=sentence):
        find_cluster("auto")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    with pytest.raises(
        ConfigError, match="'elsewhere' is no address of a Ray cluster; expected auto or host:port"
    ):
        find_cluster("auto")


@pytest.mark.parametrize("at", ["press", "press:", ":6379", "press:70000", "ray://press:10001", "press:ray"])
def test_what_is_no_address_is_told(at: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a Ray cluster; expected auto or host:port"):
        find_cluster(at)


def test_one_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = f"127.0.0.1:{server.getsockname()[1]}"
        assert find_cluster(at) == at


def test_the_command_says_so_and_leaves_nothing(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--categories", "cap", "--data", "synthetic", "--address", f"127.0.0.1:{closed_port}"]
    result = CliRunner().invoke(main, ["fleet", *options])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: No Ray cluster answers at ")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["fleet", *options[:4]])
    assert result.exit_code == 1
    assert (
        "train fleet needs Ray, which is not installed; install it with `pip install 'astmfr[fleet]'`."
        in result.stderr
    )


def test_nodes_take_as_many_tasks_as_the_scarcest_of_what_they_have_allows() -> None:
    ray = ray_of(
        node("b", CPU=8.0, GPU=2.0),
        node("a", CPU=3.0),
        node("head", CPU=0.0),
        node("gone", alive=False, CPU=64.0),
        node("10.0.0.1", CPU=1.0),
    )
    assert find_nodes(ray, share(memory_gb=2.0)) == [
        FleetNode("id-a", "a", 3), FleetNode("id-b", "b", 4), FleetNode("id-10.0.0.1", "host", 1),
    ]  # fmt: skip
    assert find_nodes(ray, share(gpus=0.5)) == [FleetNode("id-b", "b", 4)]
    assert find_nodes(ray, share(cpus=3, gpus=0.1)) == [FleetNode("id-b", "b", 2)]
    assert has_gpus(ray)
    assert not has_gpus(ray_of(node("a", CPU=3.0), node("gone", alive=False, GPU=1.0)))


def test_no_node_that_suffices_is_told_before_a_task_waits_for_ever() -> None:
    ray = ray_of(node("a", CPU=3.0), node("b", CPU=8.0))
    with pytest.raises(ConfigError) as error:
        require_nodes(ray, share(gpus=0.5))
    assert error.value.message == (
        "No node can take a task of 1 cores, 0.5 GPUs and 1 GB; the most that a node has is 8 cores, 0 GPUs and 8.0 "
        "GB; ask for less with --cpus-per-task, --gpus-per-task or --memory-per-task."
    )


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\n",
            "has another Ray or Python than this machine: Version mismatch: The cluster was started with: Ray: 2.9.0",
        ),
        (
            "no raylet\n here",
            r"cannot be used from this machine \(no raylet here\); it has to be one of the cluster's",
        ),
    ],
)
def test_a_cluster_that_takes_no_driver_from_here_is_told(
    said: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"import sys; sys.exit({' '.join(said.split())!r})"
    monkeypatch.setattr(address, "JOIN", script)
    with pytest.raises(ConfigError, match=sentence):
        require_cluster("press:6379")


def test_what_answers_otherwise_than_ray_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "JOIN", "import time; time.sleep(60)")
    with pytest.raises(
        ConfigError, match=r"cannot be used from this machine \(no answer of Ray's within 0.2 s\)"
    ):
        require_cluster("press:22", within_s=0.2)


@pytest.mark.parametrize(
    ("environment", "at_home", "sentence"),
    [
        ({}, False, "and there is none here; copy ~/.ray/auth_token of its head node to the same place here, or set"),
        ({}, True, "and that of ~/.ray/auth_token is not it; copy"),
        ({"RAY_AUTH_TOKEN": "b"}, True, "and that of RAY_AUTH_TOKEN is not it; copy"),
        ({"RAY_AUTH_TOKEN_PATH": "/b"}, True, "and that of /b is not it; copy"),
        ({"RAY_AUTH_MODE": "disabled"}, True, "and RAY_AUTH_MODE=disabled sends none; set it to token."),
    ],
)  # fmt: skip
def test_a_cluster_with_another_token_is_told(
    environment: dict[str, str],
    at_home: bool,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if at_home:
        (tmp_path / "home" / ".ray").mkdir(parents=True)
        (tmp_path / "home" / ".ray" / "auth_token").write_text("b")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    package = tmp_path / "modules" / "ray"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"def init(**options): raise ConnectionError({NO_TOKEN!r})")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(ConfigError) as error:
        require_cluster("press:6379")
    assert error.value.message.startswith(f"The Ray cluster at press:6379 asks for its token, {sentence}")
    assert "Traceback" not in error.value.message


@pytest.mark.parametrize("asks", [True, False])
def test_a_token_that_is_here_is_sent_where_it_is_asked_for(
    asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = f"import os, sys; sys.exit(None if 'RAY_AUTH_MODE' in os.environ else {NO_TOKEN!r})"
    monkeypatch.setattr(address, "JOIN", refusing if asks else "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a")
    require_cluster("press:6379")
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if asks else None)


def test_a_token_of_its_own_guards_a_local_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    make_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not (tmp_path / "home").exists()

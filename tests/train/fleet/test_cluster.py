"""A cluster that is not there, Ray that is not installed, and nodes that are too small: one sentence each."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from train.__main__ import main
from train.errors import ConfigError
from train.fleet import cluster
from train.fleet.cluster import FleetNode, find_cluster, find_nodes, has_gpus, require_cluster, require_nodes
from train.fleet.plan import Share


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


@pytest.mark.parametrize(
    "address", ["press", "press:", ":6379", "press:70000", "ray://press:10001", "press:ray"]
)
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a Ray cluster; expected auto or host:port"):
        find_cluster(address)


def test_one_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert find_cluster(address) == address


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
    monkeypatch.setattr(cluster, "JOIN", script)
    with pytest.raises(ConfigError, match=sentence):
        require_cluster("press:6379")


def test_what_answers_otherwise_than_ray_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "JOIN", "import time; time.sleep(60)")
    with pytest.raises(
        ConfigError, match=r"cannot be used from this machine \(no answer of Ray's within 0.2 s\)"
    ):
        require_cluster("press:22", within_s=0.2)

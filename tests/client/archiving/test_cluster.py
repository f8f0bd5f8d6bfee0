"""A cluster that is not there, and machines that lack the images or have other versions; without Ray."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.__main__ import main
from client.archiving.machines import cluster
from client.archiving.machines.cluster import LOOPBACK, OTHER_ADDRESS, ray_cluster
from client.archiving.machines.nodes import Look, fault_of, look_around, one_a_folder, versions_here
from client.archiving.work import StoppedError
from client.core.errors import RequestError
from tests.products import unused_url

HERE = Look("desk (10.0.0.1)", {"Python": "3.11", "astmfr": "0.1.0, code 12345678", "ray": "2.60.0"})
NODE = replace(HERE, node="gpu7 (10.0.0.7)")


def test_what_is_alike_has_no_fault() -> None:
    assert fault_of(HERE, [HERE, NODE]) is None


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"Python": "3.12"}, "has Python 3.12, and desk (10.0.0.1), where this was started, has Python 3.11; install"),
        ({"ray": "2.59.0", "Python": "3.12"}, "has Python 3.12, ray 2.59.0, and desk"),
        ({"astmfr": "0.1.0, code 87654321"}, "has astmfr 0.1.0, code 87654321, and desk"),
    ],
)  # fmt: skip
def test_other_versions_are_named_with_their_node(theirs: dict[str, str], said: str) -> None:
    fault = fault_of(HERE, [NODE, replace(NODE, node="gpu8 (10.0.0.8)", versions=HERE.versions | theirs)])
    assert fault is not None
    assert fault.startswith(f"Node gpu8 (10.0.0.8) {said}")


def test_a_node_without_the_project_is_named() -> None:
    fault = fault_of(HERE, [replace(NODE, versions={"astmfr": "not installed"})])
    assert fault is not None
    assert "has Python not installed, astmfr not installed, ray not installed" in fault


def test_a_node_without_the_images_is_named_with_the_path() -> None:
    lacking = replace(NODE, missing=frozenset({b"/share/lot/1.png"}))
    assert fault_of(HERE, [HERE, lacking]) == (
        "/share/lot/1.png is not there on node gpu7 (10.0.0.7), and it is on desk (10.0.0.1); make its folder known on "
        "all nodes under the same path."
    )
    elsewhere = replace(HERE, missing=lacking.missing)  # where this was started need not see them
    assert "and it is on gpu8;" in str(fault_of(elsewhere, [lacking, replace(NODE, node="gpu8")]))
    assert fault_of(elsewhere, [lacking]) is None  # nobody has it: its row will say so


def test_images_are_looked_for_in_every_folder(tmp_path: Path) -> None:
    paths = b"".join(b"/share/%d/%d.png\0" % (lot, image) for lot in range(3) for image in range(5))
    assert one_a_folder(paths) == [b"/share/0/0.png", b"/share/1/0.png", b"/share/2/0.png"]
    assert len(one_a_folder(b"".join(b"/share/%04d/1.png\0" % lot for lot in range(1001)))) <= 200
    look = look_around([bytes(tmp_path), b"/share/0/0.png"])
    assert look.missing == {b"/share/0/0.png"}
    assert look.versions == versions_here()
    assert set(look.versions) == {"Python", "astmfr", "ray", "pyarrow", "pillow"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "is not host:port of a Ray cluster"),
        ("head", "is not host:port of a Ray cluster"),
        ("no-such-host.invalid:6379", "No Ray cluster answers at no-such-host.invalid:6379"),
        ("", "is not host:port"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address: str, said: str) -> None:
    with pytest.raises(RequestError, match=said), ray_cluster(address, workers=1, stop=threading.Event()):
        pass
    with (
        pytest.raises(RequestError, match=r"\(Connection refused\); start one with `ray start --head`"),
        ray_cluster(unused_url(), workers=1, stop=threading.Event()),
    ):
        pass


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_a_missing_extra_is_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.cli.archive.find_spec", lambda name: None if name == missing else name)
    done = CliRunner().invoke(main, ["archive", "drop", "--to", "results.parquet", "--category", "pill"])
    assert done.exit_code == 2
    assert f"needs {missing}, which is not installed here; install the extra: pip install" in done.output


def test_what_is_no_ray_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setenv(OTHER_ADDRESS, "0")
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with (
            pytest.raises(
                RequestError, match="is not the head node of a Ray cluster; give the address that `ray"
            ),
            ray_cluster(f"{LOOPBACK}:{other.server_port}", workers=1, stop=threading.Event()),
        ):
            pass
        other.shutdown()


def test_waiting_for_a_cluster_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_speaks_grpc", lambda address: True)
    monkeypatch.setattr(cluster, "JOIN", "import time; time.sleep(600)")
    monkeypatch.setenv(OTHER_ADDRESS, "1")
    stop = threading.Event()
    with socket.create_server((LOOPBACK, 0)) as mute:
        address = f"{LOOPBACK}:{mute.getsockname()[1]}"
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(StoppedError, match="Interrupted"), ray_cluster(address, workers=1, stop=stop):
            pass
        assert os.environ[OTHER_ADDRESS] == "0"  # Ray may use the loopback address
        monkeypatch.setattr(cluster, "JOIN_TIMEOUT_S", 0.1)
        with (
            pytest.raises(
                RequestError, match=r"cannot be used \(no answer of Ray's within 0\.1 s\); this machine has"
            ),
            ray_cluster(address, workers=1, stop=threading.Event()),
        ):
            pass


def test_a_signal_ends_what_ray_would_not_end() -> None:
    stop, before = threading.Event(), signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with pytest.raises(KeyboardInterrupt), cluster._interruptible():
            signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)  # as before
    finally:
        signal.signal(signal.SIGINT, before)

"""What a real server lets in, and what it answers to those who may not ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner
from tritonclient.utils import InferenceServerException

from deploy.__main__ import main
from deploy.protection.certificates import Certificates
from deploy.protection.protection import Protection
from deploy.protection.secrets import NAME
from deploy.server import TritonServer, running_server
from deploy.supervision.grpc_probe import call_is_answered, grpc_answers
from deploy.supervision.inference_probe import inference_answers
from model_repository.grpc_endpoint import KEY_HEADER
from tests.certificates import Authority, Signed
from tests.deploy.conftest import add_model
from tests.hanging import hanging
from tests.products import ROOT

pytestmark = pytest.mark.triton

KEY = "0123456789abcdef-admin"
TIMEOUT_S = 5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("protected") / "models", "identity")


@pytest.fixture(scope="module")
def protection(pair: Signed, authority: Authority) -> Protection:
    """Mutual TLS, controls behind a key, no shared memory of clients."""
    return Protection(Certificates(pair.certificate, pair.key, authority.path), KEY, controls_open=False)


@pytest.fixture(scope="module")
def server(
    models: Path, protection: Protection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(
        repository=models, log=log, protection=protection, triton_env=ROOT / ".triton"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def line(authority: Authority) -> Signed:
    """Certificate and key of a client."""
    return authority.sign("line", host="line-7.example")


def judge(server: TritonServer, root: Path | None, pair: Signed | None = None) -> list[int]:
    """An answer of the server, by a client that trusts `root` and shows `pair`."""
    with grpcclient.InferenceServerClient(
        server.grpc_url,
        ssl=root is not None,
        root_certificates=None if root is None else str(root),
        private_key=str(pair.key) if pair else None,
        certificate_chain=str(pair.certificate) if pair else None,
    ) as client:
        image = grpcclient.InferInput("image", [1, 3], "UINT8")
        image.set_data_from_numpy(np.array([[0, 7, 255]], np.uint8))
        answer = client.infer("identity", [image], client_timeout=TIMEOUT_S).as_numpy("same")
    return [] if answer is None else answer[0].tolist()


def trusted(server: TritonServer, authority: Authority, pair: Signed) -> grpcclient.InferenceServerClient:
    return grpcclient.InferenceServerClient(
        server.grpc_url,
        ssl=True,
        root_certificates=str(authority.path),
        private_key=str(pair.key),
        certificate_chain=str(pair.certificate),
    )


def test_a_client_of_the_authority_is_answered(
    server: TritonServer, authority: Authority, line: Signed
) -> None:
    assert judge(server, authority.path, line) == [0, 7, 255]


def test_a_client_without_a_good_certificate_is_refused(
    server: TritonServer, authority: Authority, foreign: Authority, line: Signed
) -> None:
    ended = authority.sign("ended_line", days=-1)
    strangers: dict[str, tuple[Path | None, Signed | None]] = {
        "no TLS": (None, None),
        "no certificate": (authority.path, None),
        "another authority's": (authority.path, foreign.sign("stranger")),
        "ended": (authority.path, ended),
        "who does not trust the server's authority": (foreign.path, line),
    }
    for name, (root, pair) in strangers.items():
        with pytest.raises(InferenceServerException) as refused:
            print(name, judge(server, root, pair))
        assert "UNAVAILABLE" in str(refused.value.status()), name


@pytest.mark.parametrize(
    ("host", "days"),
    [("elsewhere.example", 9), ("127.0.0.1", -1)],
    ids=["host", "ended"],
)
def test_a_client_refuses_a_server_with_a_bad_certificate(
    models: Path, tmp_path: Path, authority: Authority, host: str, days: int
) -> None:
    pair = authority.sign("bad_server", host=host, days=days)
    protection = Protection(Certificates(pair.certificate, pair.key))
    with running_server(
        repository=models, log=tmp_path / "log", protection=protection, triton_env=ROOT / ".triton"
    ) as running:
        with pytest.raises(InferenceServerException) as refused:
            judge(running, authority.path)
        assert "UNAVAILABLE" in str(refused.value.status())


CONTROLS: dict[str, Callable[..., Any]] = {
    "index": lambda client, **key: client.get_model_repository_index(**key),
    "load": lambda client, **key: client.load_model("identity", **key),
    "unload": lambda client, **key: client.unload_model("nothing", **key),
    "statistics": lambda client, **key: client.get_inference_statistics(**key),
    "trace": lambda client, **key: client.get_trace_settings(**key),
    "logging": lambda client, **key: client.get_log_settings(**key),
    "system memory": lambda client, **key: client.get_system_shared_memory_status(**key),
    "CUDA memory": lambda client, **key: client.get_cuda_shared_memory_status(**key),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_ask_for_the_key(
    name: str, server: TritonServer, authority: Authority, line: Signed, protection: Protection
) -> None:
    with trusted(server, authority, line) as client:
        for headers in (None, {KEY_HEADER + NAME: "another-key-0123456"}):
            with pytest.raises(InferenceServerException, match="protocol is restricted"):
                CONTROLS[name](client, headers=headers)
        CONTROLS[name](client, headers={KEY_HEADER + NAME: protection.admin_key})


def test_what_judging_needs_is_open(server: TritonServer, authority: Authority, line: Signed) -> None:
    with trusted(server, authority, line) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("identity")
        assert client.get_model_config("identity").config.name == "identity"
        assert client.get_server_metadata().name == "triton"


def test_http_asks_for_the_key_and_stays_on_this_machine(
    server: TritonServer, protection: Protection
) -> None:
    assert server.http_url.startswith("http://127.0.0.1:")
    for path in ("/v2/models/stats", "/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.http_url}{path}", timeout=TIMEOUT_S)
        assert refused.value.code == 403
        refused.value.close()
        request = urllib.request.Request(f"{server.http_url}{path}", headers=dict(protection.http_headers))
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            json.load(answer)


def test_the_supervisor_asks_what_is_encrypted_over_http(server: TritonServer) -> None:
    assert call_is_answered(server.grpc_url, "ServerLive", b"", within_s=TIMEOUT_S) is None
    assert grpc_answers(server.grpc_url, within_s=TIMEOUT_S)
    assert inference_answers(server.grpc_url, server.http_url, "identity", TIMEOUT_S)
    with hanging(server):
        assert not inference_answers(server.grpc_url, server.http_url, "identity", 0.5)


def test_the_log_does_not_hold_the_key(server: TritonServer) -> None:
    text = server.log.read_text()
    assert "--grpc-restricted-protocol" in text
    assert KEY not in text


def test_load_takes_the_key(server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`identity` has no second ensemble and is no category: who has the key is told that, and nobody else."""
    command = ["load", "identity", "--http-url", server.http_url]
    monkeypatch.delenv("ASTMFR_KEYS", raising=False)
    monkeypatch.delenv("ASTMFR_KEY_FILE", raising=False)
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "--key-file" in refused.output
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(f"astmfr-admin={KEY}\n")
    told = CliRunner().invoke(main, [*command, "--key-file", str(path)])
    assert "is no category in the repository" in told.output

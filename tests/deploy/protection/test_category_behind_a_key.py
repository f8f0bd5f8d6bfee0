"""One published category over mutual TLS: who has no key judges, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from client import JudgeClient
from client.core.errors import NotAllowed
from deploy.__main__ import main
from deploy.protection.certificates import Certificates
from deploy.protection.protection import Protection
from deploy.protection.secrets import NAME
from deploy.server import TritonServer, running_server
from model_repository.grpc_endpoint import Endpoint, Tls
from tests.certificates import Authority, Signed
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny

pytestmark = pytest.mark.triton

KEY = "0123456789abcdef-admin"


@pytest.fixture(scope="module")
def repository(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = copy_backends(tmp_path_factory.mktemp("behind_a_key") / "models")
    publish_tiny(tiny_build / CATEGORY, models)
    return models


@pytest.fixture(scope="module")
def server(
    repository: Path, pair: Signed, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    certificates = Certificates(pair.certificate, pair.key, authority.path)
    protection = Protection(certificates, KEY, controls_open=False)
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(
        repository=repository, log=log, triton_env=ROOT / ".triton", protection=protection
    ) as running:
        yield running


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    line = authority.sign("line_7", host="line-7.example")
    return Tls(authority.path, line.certificate, line.key)


def test_a_client_without_the_key_judges(server: TritonServer, tls: Tls) -> None:
    with JudgeClient(Endpoint(server.grpc_url, tls), category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        assert judge.score(Image.new("RGB", (64, 64), "gray")).release_id == judge.release_id


def test_its_shared_memory_is_refused_in_a_sentence(server: TritonServer, tls: Tls) -> None:
    with pytest.raises(
        NotAllowed, match=r"takes no shared memory of clients; .* `deploy serve --client-shm`"
    ):
        JudgeClient(
            Endpoint(server.grpc_url, tls), category=CATEGORY, timeout_s=TIMEOUT_S, shared_memory=True
        )


def test_who_has_the_key_changes_the_threshold(
    server: TritonServer, repository: Path, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ASTMFR_KEYS", "ASTMFR_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    files = (
        ("--tls-ca", tls.authority),
        ("--tls-cert", tls.certificate),
        ("--tls-key", tls.key),
    )
    command = ["retune", "--category", CATEGORY, "--repository", str(repository), "--url", server.grpc_url]
    command += ["--threshold", "7.5", *(str(word) for option in files for word in option)]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "who have its admin key; name the file that holds it with --key-file" in refused.output
    key_file = tmp_path / "admin.key"
    key_file.touch(mode=0o600)
    key_file.write_text(f"{NAME}={KEY}\n")
    done = CliRunner().invoke(main, [*command, "--key-file", str(key_file)])
    assert done.exit_code == 0, done.output
    with JudgeClient(Endpoint(server.grpc_url, tls), category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        assert judge.score(Image.new("RGB", (64, 64), "gray")).threshold == pytest.approx(7.5)

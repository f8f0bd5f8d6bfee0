"""Certificates and keys: each fault of a file is one sentence, and who does not prove who he is gets no verdict."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from tritonclient.grpc import service_pb2_grpc

from client import JudgeClient
from client.__main__ import main
from client.core.errors import RequestError, Unreachable
from deploy.releases import promote
from export.cli.builds import verify
from model_repository.grpc_channel import channel_options, connect
from model_repository.grpc_endpoint import (
    KEY_FILE,
    KEYS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    Endpoint,
    Tls,
    read_keys,
    read_pem,
)
from tests.certificates import Authority, Signed
from tests.client.judging.scripted_server import Script, Servicer, grey
from tests.products import unused_url

TIMEOUT_S = 10


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (TLS_CA, TLS_CERT, TLS_KEY, KEY_FILE, KEYS):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def client(authority: Authority) -> Signed:
    return authority.sign("client")


class Headers(grpc.ServerInterceptor):  # type: ignore[misc]
    """Notes the headers of all calls."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def intercept_service(self, continuation: Callable, details: grpc.HandlerCallDetails) -> object:  # type: ignore[type-arg]
        self.seen += details.invocation_metadata
        return continuation(details)


@contextlib.contextmanager
def serving(
    signed: Signed | None, *, clients_of: Authority | None = None, headers: Headers | None = None
) -> Iterator[str]:
    """A server that proves who it is, and may ask its clients to."""
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[headers] if headers else [])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(Script()), server)
    if signed is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = signed.key.read_bytes(), signed.certificate.read_bytes()
        root = clients_of.path.read_bytes() if clients_of else None
        credentials = grpc.ssl_server_credentials([pair], root, require_client_auth=root is not None)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def score(endpoint: Endpoint | str) -> float:
    with JudgeClient(endpoint, category="pill", timeout_s=TIMEOUT_S) as judge:
        return judge.score(grey(10)).score


def test_tls_and_mutual_tls(authority: Authority, client: Signed) -> None:
    server = authority.sign("server")
    with serving(server) as url:
        assert score(Endpoint(url, Tls(authority.path))) == 10
    with serving(server, clients_of=authority) as url:
        assert score(Endpoint(url, Tls(authority.path, client.certificate, client.key))) == 10


def test_a_server_that_is_not_who_it_should_be(tmp_path: Path, authority: Authority) -> None:
    foreign = Authority(tmp_path, "foreign")
    for signed, reason in (
        (authority.sign("old", days=-1), "its certificate has expired; renew it"),
        (authority.sign("other", host="line-9"), "its certificate is of another host; give the name"),
        (foreign.sign("foreign"), "its certificate is of another authority; give the one that signed it"),
    ):
        with serving(signed) as url, pytest.raises(Unreachable) as caught:
            score(Endpoint(url, Tls(authority.path)))
        assert caught.value.message.startswith(
            f"What answers at {url} does not prove that it is 127.0.0.1: {reason}"
        )
    with serving(None) as url, pytest.raises(Unreachable, match=r"speaks no TLS; leave out --tls-ca"):
        score(Endpoint(url, Tls(authority.path)))
    with (
        serving(authority.sign("server")) as url,
        pytest.raises(Unreachable, match="it may ask for --tls-ca"),
    ):
        score(url)


def test_a_client_that_is_not_who_it_should_be(tmp_path: Path, authority: Authority) -> None:
    foreign = Authority(tmp_path, "foreign").sign("foreign")
    old = authority.sign("old", days=-1)
    with serving(authority.sign("server"), clients_of=authority) as url:
        for tls in (
            Tls(authority.path),
            Tls(authority.path, foreign.certificate, foreign.key),
            Tls(authority.path, old.certificate, old.key),
        ):
            with pytest.raises(Unreachable, match="--tls-cert and --tls-key"):
                score(Endpoint(url, tls))


def test_keys_go_with_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text("# of line 3\n\nadmin = s3cret=\nstats=a b\n".replace("a b", "ab"))
    monkeypatch.setenv(KEY_FILE, str(keys))
    monkeypatch.setenv(KEYS, "stats=cd,Trace=ef")
    headers = Headers()
    with serving(None, headers=headers) as url:
        endpoint = Endpoint.of(url)
        assert endpoint.keys == {"admin": "s3cret=", "stats": "cd", "trace": "ef"}
        assert "s3cret" not in repr(endpoint)
        assert score(url) == 10
    assert (
        headers.seen.count(("triton-grpc-protocol-admin", "s3cret=")) == 3
    )  # ready, configuration, inference
    assert headers.seen.count(("triton-grpc-protocol-stats", "cd")) == 3


def test_a_line_that_is_no_key_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^Line 2 of keys is no key; expected name=value") as caught:
        read_keys("a=b\nverysecret", "keys")
    assert "verysecret" not in str(caught.value)


def spoil(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.touch()
    path.chmod(mode)
    path.write_bytes(content)
    return path


def test_each_bad_file_is_one_sentence(tmp_path: Path, authority: Authority, client: Signed) -> None:
    text = spoil(tmp_path / "text", b"no certificate")
    open_key = spoil(tmp_path / "open.key", client.key.read_bytes(), 0o644)
    key = serialization.load_pem_private_key(client.key.read_bytes(), None)
    locked = spoil(
        tmp_path / "locked.key",
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    )
    own = client.certificate
    cases = [
        (Tls(tmp_path / "gone"), "gone cannot be read (No such file or directory); expected the authority's"),
        (Tls(tmp_path), "is a folder; expected the authority's certificates, a file."),
        (Tls(spoil(tmp_path / "empty", b"")), "empty is empty; expected the authority's certificates."),
        (Tls(text), "text holds no certificate; expected the authority's, in PEM."),
        (Tls(client.key), "client.key holds no certificate; expected the authority's, in PEM."),
        (Tls(authority.path, own, tmp_path / "gone"), "gone cannot be read (No such file or directory)"),
        (Tls(authority.path, text, client.key), "text holds no certificate; expected this client's, in PEM."),
        (Tls(authority.path, own, open_key), "(mode 0644); close it with `chmod 600 "),
        (Tls(authority.path, own, locked), "locked.key is encrypted, and nobody is there to give"),
        (
            Tls(authority.path, own, authority.sign("other").key),
            "other.key is not the private key of ",
        ),
        (Tls(authority.path, own, text), "are no certificate with its private key; expected both in PEM."),
    ]
    for tls, sentence in cases:
        with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
            read_pem(tls)
        assert "\n" not in str(caught.value)
        with pytest.raises(RequestError, match=re.escape(sentence)):
            JudgeClient(Endpoint("localhost:1", tls), category="pill", timeout_s=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tls-cert", "a"], "This client's certificate is of no use alone; give --tls-key too."),
        (["--tls-key", "a"], "This client's private key is of no use alone; give --tls-cert too."),
        (["--tls-cert", "a", "--tls-key", "b"], "no authority to check the server's by; give --tls-ca."),
        (["--tls-ca", "gone"], "gone cannot be read (No such file or directory)"),
        (["--key-file", "gone"], "gone cannot be read (No such file or directory); expected the keys."),
    ],
)
def test_the_command_line_names_them(options: list[str], sentence: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    grey(1).save(picture)
    done = CliRunner().invoke(
        main, ["predict", str(picture), "--category", "pill", "--url", unused_url(), *options]
    )
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert Endpoint.of("localhost:1") == Endpoint("localhost:1")  # nothing of it is left


def test_the_command_line_judges_over_mutual_tls(
    tmp_path: Path, authority: Authority, client: Signed
) -> None:
    picture = tmp_path / "a.png"
    grey(10).save(picture)
    files = ["--tls-ca", authority.path, "--tls-cert", client.certificate, "--tls-key", client.key]
    with serving(authority.sign("server"), clients_of=authority) as url:
        done = CliRunner().invoke(
            main, ["predict", str(picture), "--category", "pill", "--url", url, *map(str, files)]
        )
    assert done.exit_code == 0, done.output
    assert "1 judged: 0 anomalous, 1 good" in done.output


@pytest.mark.parametrize("command", [main.commands["predict"], main.commands["bench"], verify, promote])
def test_every_command_that_connects_takes_them(command: click.Command) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--url", "--tls-ca", "--tls-cert", "--tls-key", "--key-file"} <= options


def test_how_grpc_connects() -> None:
    options = dict(channel_options(Endpoint("localhost:1")))
    # A try and the wait after it, which gRPC spreads by a fifth, end within 2 s of a server's readiness.
    assert options["grpc.min_reconnect_backoff_ms"] + 1.2 * options["grpc.max_reconnect_backoff_ms"] < 2000
    # Triton's own default of --grpc-http2-min-recv-ping-interval-without-data.
    assert options["grpc.keepalive_time_ms"] > 300_000
    assert not options["grpc.keepalive_permit_without_calls"]
    assert not options["grpc.enable_retries"]


def test_a_request_beyond_the_message_size_is_an_error() -> None:
    with serving(None) as url:
        client = connect(Endpoint(url, largest_message=10))
        try:
            with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
                client.is_model_ready("p" * 100, client_timeout=5)
        finally:
            client.close()

"""What a server's address is taken for, and what is said of one that is not a server's HTTP port."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from deploy.errors import ServerError
from deploy.lazy_loading import unload_category
from deploy.model_control import ModelControl

GRPC = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x7f\xff\xff\xff"  # an HTTP/2 SETTINGS frame
PORTS = r"give its HTTP port with --http-url, 8000 unless .* \(8001 is gRPC's, 8002 the metrics'\)\.$"


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """`answering(data)` is the host:port of a server that answers every connection with these bytes."""
    with ExitStack() as stack:

        def start(data: bytes) -> str:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    self.request.recv(4096)
                    self.request.sendall(data)

            server = stack.enter_context(socketserver.TCPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (GRPC, rf"^http://127\.0\.0\.1:\d+ answers as gRPC does; {PORTS}"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", f"does not answer in HTTP; {PORTS}"),
        *(
            (http("405 Method Not Allowed", body), f"answers 405 .*, not as a tritonserver does; {PORTS}")
            for body in ("", '{"error":"Method Not Allowed"}')
        ),
        (http("200 OK", "<html></html>"), f"does not answer as a tritonserver does; {PORTS}"),
        (
            http("400 Bad Request", '{"error": "no such model."}'),
            r"tritonserver at \S+ answered: no such model\.$",
        ),
        (b"", r"tritonserver at \S+ does not answer \(Remote end closed connection without response\)"),
    ],
)
def test_a_port_is_named_as_what_it_is(
    answering: Callable[[bytes], str], answer: bytes, sentence: str
) -> None:
    with pytest.raises(ServerError, match=sentence):
        ModelControl(answering(answer)).load("pill")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "grpc://line-7:8001",
        "https://line-7",
        "http://line 7:80",
        "http://line-7:99999",
        "http://line-7/metrics",
    ],
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(
        ServerError, match=r"is no address of a server; expected http://host:port, http://127\.0\.0\.1:8000"
    ):
        ModelControl(url)


@pytest.mark.parametrize("url", ["line-7:8000", "http://line-7:8000", "http://line-7:8000/"])
def test_an_address_may_lack_its_scheme(url: str) -> None:
    assert ModelControl(url).http_url == "http://line-7:8000"


READY = [{"name": name, "state": "READY"} for name in ("pill", "pill_encoded", "pill_student", "teacher_x")]


@pytest.mark.parametrize("model", ["teacher_x", "pill_student", "pill_encoded", "distance_fusion", "nut"])
def test_a_step_is_not_unloaded_under_its_categories(answering: Callable[[bytes], str], model: str) -> None:
    control = ModelControl(answering(http("200 OK", json.dumps(READY))))
    sentence = rf"'{model}' is no category in the repository of the server at http://127\.0\.0\.1:\d+; it holds pill\."
    with pytest.raises(ServerError, match=sentence):
        unload_category(control, model)


def test_nothing_is_unloaded_while_another_category_is_being_loaded(
    answering: Callable[[bytes], str],
) -> None:
    """Its steps seem to be unused until its ensembles are there."""
    index = [*READY, {"name": "nut_student", "state": "LOADING"}]
    control = ModelControl(answering(http("200 OK", json.dumps(index))))
    with pytest.raises(ServerError, match="is loading nut_student; unload pill when that is done"):
        unload_category(control, "pill")

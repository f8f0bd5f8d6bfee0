from __future__ import annotations

import socket

import pytest

from deploy.server import TritonServer
from deploy.supervision.grpc_probe import grpc_answers
from tests.hanging import hanging


def test_nobody_and_silence_are_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not grpc_answers(url, within_s=0.2)
    assert not grpc_answers(url, within_s=0.2)


@pytest.mark.triton
def test_a_server_answers_unless_it_hangs(server: TritonServer) -> None:
    for _ in range(3):
        assert grpc_answers(server.grpc_url, within_s=5)
    assert grpc_answers(server.http_url.removeprefix("http://"), within_s=5)  # not gRPC, and somebody
    with hanging(server):
        assert not grpc_answers(server.grpc_url, within_s=0.5)

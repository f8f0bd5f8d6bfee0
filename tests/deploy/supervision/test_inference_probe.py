"""Scripted servers that answer everything but inferences, or refuse them."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from deploy.supervision.grpc_probe import grpc_answers
from deploy.supervision.inference_probe import (
    grpc_message,
    http_answers,
    image_tensor,
    inference_answers,
    probe_picture,
)
from export.serving.ensembles import ensemble_config
from export.serving.steps import to_text
from model_repository.alignment.reference_picture import FILE, Reference

NOBODY = "http://127.0.0.1:1"
GREY = probe_picture(None, "pill_encoded")


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers that it lives; inferences of `hung` never end, of `full` are refused, of others answered."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self.asked: list[service_pb2.ModelInferRequest] = []

    def ServerLive(  # noqa: N802
        self, request: object, context: object
    ) -> service_pb2.ServerLiveResponse:
        return service_pb2.ServerLiveResponse(live=True)

    def ModelInfer(  # noqa: N802
        self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        self.asked.append(request)
        if request.model_name == "hung":
            self.ending.wait()
        if request.model_name == "full":
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return service_pb2.ModelInferResponse()


@pytest.fixture
def scripted() -> Iterator[tuple[str, Scripted]]:
    """Its address over gRPC, and itself."""
    servicer = Scripted()
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    servicer.ending.set()
    server.stop(None).wait()


@contextmanager
def http_server() -> Iterator[str]:
    """Answers everything but the inferences of `hung`; the others with an error."""
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path == "/v2/models/hung/infer":
                ending.wait()
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        ending.set()
        server.shutdown()


def test_a_server_that_answers_all_but_inferences(scripted: tuple[str, Scripted]) -> None:
    url, _ = scripted
    assert grpc_answers(url, within_s=5)
    assert not inference_answers(url, NOBODY, "hung", 0.3)
    assert inference_answers(url, NOBODY, "full", 5)
    assert inference_answers(url, NOBODY, "pill_encoded", 5)


def test_it_asks_for_a_score_alone(scripted: tuple[str, Scripted]) -> None:
    url, servicer = scripted
    assert inference_answers(url, NOBODY, "pill_encoded", 5)
    request = servicer.asked[0]
    assert request == service_pb2.ModelInferRequest.FromString(grpc_message("pill_encoded", GREY))
    assert {name: value.bool_param for name, value in request.parameters.items()} == {
        "score_only": True,
        "probe": True,
    }
    assert [output.name for output in request.outputs] == ["pred_score"]
    assert (request.inputs[0].name, list(request.inputs[0].shape)) == ("encoded_image", [1, 1])
    assert request.raw_input_contents[0] == image_tensor(GREY)
    with Image.open(io.BytesIO(image_tensor(GREY)[4:])) as image:
        assert image.size == (64, 64)
        assert image.convert("RGB").getextrema() == ((128, 128),) * 3


def test_an_encrypted_endpoint_is_passed_by_over_http() -> None:
    with http_server() as http_url, socket.create_server(("127.0.0.1", 0)) as encrypted:

        def close() -> None:
            with suppress(OSError):
                while True:
                    encrypted.accept()[0].close()

        closing = threading.Thread(target=close)
        closing.start()
        url = f"127.0.0.1:{encrypted.getsockname()[1]}"
        try:
            assert not inference_answers(url, http_url, "hung", 0.3)
            assert inference_answers(url, http_url, "pill_encoded", 5)
        finally:
            encrypted.shutdown(socket.SHUT_RDWR)
            closing.join()


def test_nobody_is_no_answer() -> None:
    assert not http_answers(NOBODY, "pill_encoded", GREY, within_s=1)
    assert not inference_answers("127.0.0.1:1", NOBODY, "pill_encoded", 1)


def test_a_category_that_aligns_is_asked_about_its_reference_picture(tmp_path: Path) -> None:
    step = model_config_pb2.ModelEnsembling.Step(model_name="pill_alignment_48x64", model_version=2)
    config = ensemble_config(
        "pill_encoded", inputs=[], outputs=[], steps=[step], parameters={}, max_batch_size=1
    )
    (tmp_path / "pill_encoded").mkdir()
    (tmp_path / "pill_encoded" / "config.pbtxt").write_text(to_text(config))
    assert probe_picture(tmp_path, "pill_encoded") == GREY
    for version in (1, 2, 3):
        folder = tmp_path / "pill_alignment_48x64" / str(version)
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(version).integers(0, 256, (48, 64), np.uint8)
        (folder / FILE).write_text(Reference(pixels, 0.5).to_json())
    with Image.open(io.BytesIO(probe_picture(tmp_path, "pill_encoded"))) as image:
        np.testing.assert_array_equal(
            np.asarray(image), np.random.default_rng(2).integers(0, 256, (48, 64), np.uint8)
        )
    (tmp_path / "pill_alignment_48x64" / "2" / FILE).write_text("{}")
    assert probe_picture(tmp_path, "pill_encoded") == GREY

"""JudgeClient against a real server: what it refuses, and in which words."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image

from client import JudgeClient, load_image
from client.core.errors import RequestError, ServerError
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import fusion_code_id, release_id_of
from tests.deploy.conftest import add_model
from tests.hanging import hanging
from tests.products import (
    TIMEOUT_S,
    UNCALIBRATED,
    UNCALIBRATED_WEIGHTS,
    Product,
    calibration_file,
    unused_url,
)

pytestmark = pytest.mark.triton
pytest_plugins = ["tests.serving"]

PICTURE = Image.new("RGB", (40, 30), "gray")


@pytest.fixture
def judge(server: TritonServer, edge: Product) -> Iterator[JudgeClient]:
    with edge.connect(server) as client:
        yield client


def refusal(action: Callable[[], object]) -> str:
    """The one sentence with which an action ends."""
    with pytest.raises(ServerError) as caught:
        action()
    message = caught.value.message
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert not message.endswith("..")
    return message


def connect(url: str, category: str, *, timeout_s: float = TIMEOUT_S) -> Callable[[], JudgeClient]:
    return lambda: JudgeClient(url, category=category, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "url",
    [unused_url(), "no-such-host.invalid:8001"],
    ids=["closed", "name"],
)
def test_no_server_there(url: str) -> None:
    message = refusal(connect(url, "plate", timeout_s=20))
    assert message == f"No Triton server answers at {url}; start one with `make serve`."


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_is_passed_by_for_this_host_and_named_for_others(
    server: TritonServer, edge: Product, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = unused_url()
    monkeypatch.setenv(variable, f"http://user:secret@{proxy}")
    for url in (server.grpc_url, server.grpc_url.replace("127.0.0.1", "localhost")):
        with connect(url, edge.name)() as judge:
            assert judge.judge(PICTURE).release_id == edge.checkpoint.release_id
    message = refusal(connect("line-3.invalid:8001", edge.name, timeout_s=20))
    assert message == (
        f"No Triton server answers at line-3.invalid:8001 through the proxy {proxy} ({variable}); start one with "
        "`make serve`, or add line-3.invalid to no_proxy if it is reached directly."
    )


def test_an_address_of_another_form() -> None:
    with pytest.raises(RequestError) as caught:
        connect("http://127.0.0.1:8001", "plate")()
    assert caught.value.message == (
        "'http://127.0.0.1:8001' begins with http://, and gRPC takes no scheme; expected host:port of the server's "
        "gRPC endpoint, e.g. localhost:8001."
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e30])
def test_a_timeout_that_cannot_be(server: TritonServer, timeout_s: float) -> None:
    with pytest.raises(RequestError, match=r"^The timeout is .*; expected seconds, more than 0"):
        connect(server.grpc_url, "plate", timeout_s=timeout_s)()


def test_the_http_and_metrics_ports_are_named(server: TritonServer) -> None:
    for address in (server.http_url, server.metrics_url.removesuffix("/metrics")):
        url = address.removeprefix("http://")
        assert refusal(connect(url, "plate")) == (
            f"{url} speaks HTTP and not gRPC; give Triton's gRPC port, which is 8001 unless the server was started "
            "with another one."
        )


def test_a_port_that_closes_every_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:

        def close_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        pool.submit(close_all)
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            message = refusal(connect(url, "plate", timeout_s=20))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    assert message.startswith(f"{url} closes every connection, so that no gRPC is spoken there")


def test_a_threshold_that_cannot_be(judge: JudgeClient) -> None:
    for threshold in (float("nan"), float("inf"), 1e400, -1.0):
        for ask in (judge.judge, judge.score):
            with pytest.raises(RequestError, match=r"^The threshold is .*; expected a finite number"):
                ask(PICTURE, threshold=threshold)


def test_an_image_in_every_form_has_one_verdict(judge: JudgeClient, edge: Product) -> None:
    path = edge.data.test[0].path
    image = load_image(path)
    scores = [
        judge.score(form).score for form in (path, str(path), path.read_bytes(), image, np.asarray(image))
    ]
    assert scores == pytest.approx([float(edge.expected.pred_score[0, 0])] * len(scores), abs=1e-3)


def test_the_category_is_looked_up_on_connecting(judge: JudgeClient, edge: Product) -> None:
    assert judge.image_size == edge.checkpoint.config.image_size
    assert judge.synthetic  # as the ensemble's parameters say


def test_a_category_that_is_not_served(server: TritonServer, edge: Product) -> None:
    message = refusal(connect(server.grpc_url, "pill"))
    assert message.startswith(f"Category 'pill' is not served at {server.grpc_url}; it serves ")
    assert {edge.name, UNCALIBRATED} <= set(served_names(message))
    assert "`make export CATEGORY=pill`" in message


def test_an_unloaded_category_is_not_listed(server: TritonServer, edge: Product) -> None:
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        control.unload_model(UNCALIBRATED, client_timeout=TIMEOUT_S)
        try:
            served = served_names(refusal(connect(server.grpc_url, UNCALIBRATED)))
            assert edge.name in served
            assert UNCALIBRATED not in served
        finally:
            control.load_model(UNCALIBRATED, client_timeout=TIMEOUT_S)


def served_names(message: str) -> list[str]:
    return message.partition("; it serves ")[2].partition(";")[0].split(", ")


@pytest.mark.parametrize("model", ["distance_fusion", "plate_encoded", "teacher_tf_efficientnet_lite2_128"])
def test_a_name_that_models_have_is_no_category(model: str) -> None:
    with pytest.raises(
        RequestError, match=rf"^Category '{model}' .*; give the name of a published product\.$"
    ):
        connect(unused_url(), model)()


def test_a_model_that_is_no_category(server: TritonServer, repository: Path) -> None:
    add_model(repository, "elsewhere")
    with grpcclient.InferenceServerClient(server.grpc_url) as control:
        control.load_model("elsewhere", client_timeout=TIMEOUT_S)
        try:
            message = refusal(connect(server.grpc_url, "elsewhere"))
        finally:
            control.unload_model("elsewhere", client_timeout=TIMEOUT_S)
            shutil.rmtree(repository / "elsewhere")
    assert message.startswith(f"Model 'elsewhere' at {server.grpc_url} takes image and gives ")
    assert "expected an ensemble published by `python -m export publish`" in message


def test_the_deadline_holds_for_connecting_and_asking(server: TritonServer, judge: JudgeClient) -> None:
    judge.timeout_s = 0.2
    with hanging(server):
        messages = [
            refusal(connect(server.grpc_url, judge.category, timeout_s=0.2)),
            refusal(lambda: judge.judge(PICTURE)),
            refusal(lambda: judge.judge(jpeg())),
        ]
    assert messages == [f"No answer from {server.grpc_url} within 0.2 s; is it overloaded?"] * 3
    judge.timeout_s = TIMEOUT_S
    assert judge.judge(PICTURE).release_id > 0


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "is empty"),
        (b"no image at all", "is not an image of a known format (PNG, JPEG, BMP, TIFF, WEBP)"),
        (jpeg()[:2000], "is truncated or damaged ("),
    ],
    ids=["empty", "garbage", "truncated"],
)
def test_what_the_server_cannot_decode(judge: JudgeClient, encoded: bytes, reason: str) -> None:
    message = refusal(lambda: judge.judge(encoded))
    assert message.startswith(f"The server at {judge.url} answered: ")
    assert f"encoded_image {reason}" in message
    assert judge.judge(jpeg()).release_id > 0  # the next request is none the worse for it


def test_a_release_without_its_calibration(server: TritonServer, edge: Product) -> None:
    # Whatever other tests publish here puts it right.
    calibration_file(edge.repository, UNCALIBRATED_WEIGHTS).unlink(missing_ok=True)
    with JudgeClient(server.grpc_url, category=UNCALIBRATED, timeout_s=TIMEOUT_S) as judge:
        message = refusal(lambda: judge.judge(PICTURE))
        assert f"release {UNCALIBRATED_WEIGHTS} has no calibration at " in message
        assert message.endswith(f"{UNCALIBRATED_WEIGHTS}.json; publish the release again.")

        calibration = replace(edge.checkpoint.calibration, weights_id=UNCALIBRATED_WEIGHTS)
        calibration_file(edge.repository, UNCALIBRATED_WEIGHTS).write_text(calibration.to_json())
        # as the sentence promised
        assert judge.judge(PICTURE).release_id == release_id_of(calibration, fusion_code_id())


def test_images_of_any_size_are_resized_as_in_training(judge: JudgeClient, edge: Product) -> None:
    path = edge.data.test[0].path
    verdict = judge.judge(load_image(path))
    size = edge.checkpoint.config.image_size
    assert verdict.anomaly_map.shape == verdict.mask.shape == (size, size)
    assert verdict.mask.dtype == np.bool_
    assert (type(verdict.score), type(verdict.anomalous), type(verdict.release_id)) == (float, bool, int)
    assert 0 < verdict.latency_ms < 1000 * TIMEOUT_S

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc

from deploy import server as server_module
from deploy.errors import PortError, ServerError
from deploy.server import TritonServer, running_server
from tests.deploy.conftest import add_model, comes_true, processes_of, shared_memory_of
from tests.products import ROOT

pytestmark = pytest.mark.triton


def infer(server: TritonServer, model: str, image: list[int]) -> dict[str, Any]:
    """Outputs by name, over Triton's JSON protocol."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, len(image)], "data": [image]}
    request = urllib.request.Request(
        f"{server.http_url}/v2/models/{model}/infer", data=json.dumps({"inputs": [tensor]}).encode()
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return {output["name"]: output["data"] for output in json.load(response)["outputs"]}


def test_every_model_is_ready_in_natural_order(server: TritonServer) -> None:
    models = server.models()
    assert [(model.name, model.versions, model.state) for model in models] == [
        ("part_2", (1,), "READY"),
        ("part_10", (1,), "READY"),
    ]
    assert all(model.load_s is not None and 0 < model.load_s < server.ready_s for model in models)


def test_files_beside_the_models_are_passed_over(repository: Path, tmp_path: Path) -> None:
    """As in model_repository/: a module of the clients' and what Python makes of it."""
    shutil.copy(ROOT / "model_repository" / "grpc_channel.py", repository)
    (repository / "__pycache__").mkdir()
    with running_server(repository=repository, log=tmp_path / "log") as server:
        assert [(model.name, model.state) for model in server.models()] == [("identity", "READY")]
        assert infer(server, "identity", [1, 2])["same"] == [1, 2]


def test_it_infers(server: TritonServer) -> None:
    assert infer(server, "part_2", [0, 7, 255])["same"] == [0, 7, 255]


def test_a_large_image_grows_the_shared_memory(server: TritonServer) -> None:
    image = np.arange(8 << 20, dtype=np.uint32).astype(np.uint8)[None]  # 8 MiB, twice a region's first size
    tensor = grpc.InferInput("image", image.shape, "UINT8").set_data_from_numpy(image)
    with grpc.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer("part_2", [tensor], client_timeout=20)
    np.testing.assert_array_equal(answer.as_numpy("same"), image)


def test_the_stubs_inherit_the_threads(server: TritonServer) -> None:
    environment = json.loads(infer(server, "part_10", [1])["environment"][0])
    assert environment == {
        "ASTMFR_INTRA_OP_THREADS": "3",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_the_metrics_answer(server: TritonServer) -> None:
    with urllib.request.urlopen(server.metrics_url, timeout=5) as response:
        assert b"nv_inference_request_success" in response.read()


def test_a_proxy_is_not_asked(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert len(server.models()) == 2


def test_a_port_of_a_running_server_is_refused(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    port = int(server.grpc_url.rpartition(":")[2])
    message = rf"{port} .* in use by .*tritonserver.* \(process {server.pid}\)"
    second = running_server(repository=repository, log=tmp_path / "log", grpc_port=port)
    with pytest.raises(PortError, match=message), second:
        pytest.fail("a second server listens on the same port")


def test_stopping_answers_what_is_in_flight_and_leaves_nothing(tmp_path: Path) -> None:
    begun, log = tmp_path / "begun", tmp_path / "log"
    stopping = f"'Signal (15)' in open({str(log)!r}).read()"
    wait = f"open({str(begun)!r}, 'w').close()\n        while not {stopping}: time.sleep(0.01)"
    repository = add_model(tmp_path / "models", "slow", execute=wait)
    answers: list[list[int]] = []
    with running_server(repository=repository, log=log) as server:
        asking = threading.Thread(target=lambda: answers.append(infer(server, "slow", [5])["same"]))
        asking.start()
        assert comes_true(begun.exists, within_s=60)
    asking.join()
    assert answers == [[5]]
    assert server.exit_code == 0
    assert comes_true(lambda: not processes_of(server.pid))
    assert shared_memory_of(server.log) == []
    with pytest.raises(ServerError, match="does not answer"):
        server.models()


def test_a_block_that_raises_stops_the_server(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError), running_server(repository=repository, log=tmp_path / "log") as server:
        raise KeyError
    assert server.exit_code == 0


def test_a_killed_server_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    with running_server(repository=repository, log=tmp_path / "log") as server:
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
    assert comes_true(lambda: not processes_of(server.pid))
    assert shared_memory_of(server.log) == []


def test_a_broken_model_is_told_with_its_reason(repository: Path, tmp_path: Path) -> None:
    add_model(repository, "broken", initialize="raise ValueError('no calibration for release 42')")
    add_model(repository, "typo")
    (repository / "typo" / "config.pbtxt").write_text("nam: 1")
    log = tmp_path / "log"
    with pytest.raises(ServerError) as raised, running_server(repository=repository, log=log):
        pytest.fail("a server with a broken model is given out")
    message = raised.value.message
    assert "model broken did not load: Internal: ValueError: no calibration for release 42" in message
    assert "model typo did not load: Poll failed for model directory 'typo'" in message
    assert "identity" not in message
    assert message.endswith(f"see {log}.")
    assert comes_true(lambda: nothing_writes_to(log))
    assert shared_memory_of(log) == []


def test_a_slow_model_is_told_when_the_time_is_up(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up as soon as the other model is loaded, by a clock of the test's own."""
    add_model(repository, "slow", initialize="time.sleep(600)")
    log = tmp_path / "log"

    def monotonic() -> float:
        loaded = log.exists() and "successfully loaded 'identity'" in log.read_text()
        return 1000.0 if loaded else 0.0

    monkeypatch.setattr(server_module, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    message = "not ready within 500 s, waiting for slow; see .* give it longer with --timeout-s"
    with (
        pytest.raises(ServerError, match=message),
        running_server(repository=repository, log=log, timeout_s=500),
    ):
        pytest.fail("a server is given out before its models are ready")
    assert comes_true(lambda: nothing_writes_to(log))
    assert shared_memory_of(log) == []


def test_a_server_that_dies_gives_its_last_words(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "bin" / "tritonserver"
    dying.parent.mkdir()
    dying.write_text("#!/bin/sh\necho 'error while loading shared libraries: libx.so'\nexit 127\n")
    dying.chmod(0o755)
    monkeypatch.setenv("PATH", str(dying.parent), prepend=":")
    message = (
        "ended with exit code 127 before it was ready: error while loading shared libraries: libx.so; see "
    )
    with (
        pytest.raises(ServerError, match=message),
        running_server(repository=repository, log=tmp_path / "log"),
    ):
        pytest.fail("a dead server is given out")


def nothing_writes_to(log: Path) -> bool:
    return all(os.path.realpath(output) != str(log) for output in Path("/proc").glob("[0-9]*/fd/1"))

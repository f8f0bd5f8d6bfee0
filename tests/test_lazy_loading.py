"""Three categories where two fit: what was asked longest ago goes, comes back when loaded, and nothing else goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner
from PIL import Image
from tritonclient.utils import InferenceServerException

from client import ClientError, JudgeClient
from deploy.__main__ import main
from deploy.errors import ServerError
from deploy.lazy_loading import unload_category
from deploy.model_control import ModelControl
from deploy.repository import find_categories, first_models
from deploy.server import TritonServer, running_server
from export.manifest import read_manifest
from tests.conftest import CATEGORY
from tests.deploy.conftest import comes_true
from tests.products import ROOT, TIMEOUT_S, copy_as, copy_backends
from tests.tiny_products import publish_tiny

pytestmark = pytest.mark.triton

CATEGORIES = ("bolt", "nut", "screw")
RELEASES: dict[str, int] = {}  # of each, once it is published
TEACHER = "teacher_test_resnet_64"


@pytest.fixture(scope="module")
def repository(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three categories over one teacher."""
    work = tmp_path_factory.mktemp("lazy")
    target = copy_backends(work / "models")
    for category in CATEGORIES:
        build = copy_as(tiny_build / CATEGORY, work / category)
        publish_tiny(build, target)
        RELEASES[category] = read_manifest(build).release_id
    return target


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    with running_server(
        repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton", max_categories=2
    ) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def ask(client: grpcclient.InferenceServerClient, category: str) -> int:
    """The release that answers."""
    image = grpcclient.InferInput("image", [1, 64, 64, 3], "UINT8")
    image.set_data_from_numpy(np.full((1, 64, 64, 3), 128, np.uint8))
    answer = client.infer(category, [image], client_timeout=TIMEOUT_S)
    return int(answer.as_numpy("release_id")[0, 0])


def load(client: grpcclient.InferenceServerClient, category: str) -> None:
    """As a client does: the ensembles; Triton loads their steps."""
    for model in (category, f"{category}_encoded"):
        client.load_model(model, client_timeout=TIMEOUT_S)


def loaded(server: TritonServer) -> set[str]:
    return ModelControl(server.http_url).ready()


def test_the_first_categories_are_loaded_with_what_they_need(repository: Path) -> None:
    assert list(find_categories(repository)) == list(CATEGORIES)
    assert first_models(repository, 1) == [
        "bolt", "bolt_encoded", "bolt_student", "distance_fusion", "image_decoder_64", TEACHER,
    ]  # fmt: skip
    assert "nut_student" in first_models(repository, 2)


def test_the_one_unused_longest_goes_and_comes_back(
    server: TritonServer, client: grpcclient.InferenceServerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"bolt", "nut", TEACHER} <= loaded(server)
    with pytest.raises(InferenceServerException, match="unknown model"):
        ask(client, "screw")
    time.sleep(2)  # longer than a category may stay unasked after it was loaded
    assert ask(client, "nut") == RELEASES["nut"]
    time.sleep(0.01)
    assert ask(client, "bolt") == RELEASES["bolt"]
    load(client, "screw")
    assert ask(client, "screw") == RELEASES["screw"]
    assert comes_true(lambda: "nut_student" not in loaded(server), within_s=10)
    assert loaded(server) == {
        *(name for category in ("bolt", "screw") for name in find_names(category)),
        TEACHER, "distance_fusion", "image_decoder_64",
    }  # fmt: skip
    assert "Unloaded nut, nut_encoded, nut_student: nut was last used" in capsys.readouterr().err
    load(client, "nut")
    assert ask(client, "nut") == RELEASES["nut"]
    assert comes_true(lambda: "bolt_student" not in loaded(server), within_s=10)
    assert ask(client, "screw") == RELEASES["screw"]


def test_a_step_is_not_unloaded_and_a_port_is_named(server: TritonServer) -> None:
    """`deploy unload` took a shared teacher away from all of its categories."""
    before = loaded(server)
    for model in (TEACHER, "distance_fusion", "nut_student", "nut_encoded"):
        result = CliRunner().invoke(main, ["unload", model, "--http-url", server.http_url])
        assert result.exit_code == 1
        assert f"'{model}' is no category in the repository of the server at" in result.output
        assert "it holds bolt, nut, screw." in result.output
    assert loaded(server) == before
    metrics = server.metrics_url.removesuffix("/metrics")
    for address, said in ((server.grpc_url, "answers as gRPC does"), (metrics, "not as a tritonserver does")):
        result = CliRunner().invoke(main, ["load", "nut", "--http-url", address])
        assert result.exit_code == 1
        assert said in result.output
        assert len(result.output.splitlines()) == 1


def find_names(category: str) -> tuple[str, str, str]:
    return category, f"{category}_encoded", f"{category}_student"


def test_requests_in_flight_are_answered(
    server: TritonServer, client: grpcclient.InferenceServerClient
) -> None:
    """While bolt is unloaded others ask it all the time: each gets its verdict, or hears that it is not there."""
    answers: list[str] = []
    stopping = threading.Event()

    def keep_asking() -> None:
        with grpcclient.InferenceServerClient(server.grpc_url) as mine:
            while not stopping.is_set():
                try:
                    answers.append(str(ask(mine, "bolt")))
                except InferenceServerException as error:
                    answers.append(str(error.message()))

    asking = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in asking:
        thread.start()
    assert comes_true(lambda: len(answers) > 50, within_s=20)
    unload_category(ModelControl(server.http_url), "bolt")
    gone = len(answers)
    assert comes_true(lambda: len(answers) > gone + 50, within_s=20)
    stopping.set()
    for thread in asking:
        thread.join()
    faults = {answer for answer in answers if answer != str(RELEASES["bolt"])}
    assert faults, "it was never gone"
    assert all("unknown model" in fault or "not ready" in fault for fault in faults), faults


def test_load_and_unload_by_hand(server: TritonServer) -> None:
    at = ["--http-url", server.http_url]
    unloaded = CliRunner().invoke(main, ["unload", "nut", *at])
    assert unloaded.output == "Unloaded: nut, nut_encoded, nut_student.\n"
    assert not loaded(server).intersection(find_names("nut"))
    again = CliRunner().invoke(main, ["unload", "nut", *at])
    assert again.exit_code == 1
    assert again.output == f"Error: category nut is not loaded at {server.http_url}.\n"
    assert CliRunner().invoke(main, ["load", "nut", *at]).output == "Loaded: nut and nut_encoded.\n"
    assert loaded(server).issuperset(find_names("nut"))
    unknown = CliRunner().invoke(main, ["load", "washer", *at])
    assert unknown.exit_code == 1
    assert "washer" in unknown.output
    assert len(unknown.output.splitlines()) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ServerError, match=r"tritonserver at http://127\.0\.0\.1:9 does not answer"):
        ModelControl("http://127.0.0.1:9").ready()


def test_a_client_loads_what_it_needs(server: TritonServer) -> None:
    def connect(category: str, *, load: bool) -> JudgeClient:
        return JudgeClient(server.grpc_url, category=category, timeout_s=TIMEOUT_S, load=load)

    with pytest.raises(ClientError, match="Category 'screw' is not served"):
        connect("screw", load=False)
    with pytest.raises(ClientError, match="Category 'gone' is not served"):
        connect("gone", load=True)
    image = Image.new("RGB", (64, 64))
    with connect("screw", load=True) as judge, grpcclient.InferenceServerClient(server.grpc_url) as control:
        assert judge.judge(image).release_id == RELEASES["screw"]
        # It goes while the client is connected; as soon as it is needed again it is there.
        for model in ("screw", "screw_encoded"):
            control.unload_model(model, client_timeout=TIMEOUT_S)
        assert judge.judge(image).release_id == RELEASES["screw"]
        control.unload_model("screw", client_timeout=TIMEOUT_S)
        verdicts = list(judge.judge_many([image] * 5, in_flight=3))
        assert [verdict.release_id for verdict in verdicts] == [RELEASES["screw"]] * 5

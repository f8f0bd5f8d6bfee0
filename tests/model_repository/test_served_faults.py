"""Faults on a real server: each is its own request's or release's, says which image, and is no verdict."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.server import TritonServer, running_server
from export.serving.steps import distance_fusion_config, image_decoder_config, to_text
from tests.model_repository.test_not_finite import CALIBRATION, zeros
from tests.products import ROOT, TIMEOUT_S, copy_backends

pytestmark = pytest.mark.triton

RELEASE = CALIBRATION.release_id
OTHER = 11
NAN, DEEP, FOLDER, FOREIGN, FLAT = 21, 22, 23, 24, 25  # releases whose calibrations cannot be used
INVALID, INTERNAL = "StatusCode.INVALID_ARGUMENT", "StatusCode.INTERNAL"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    work = tmp_path_factory.mktemp("faults")
    repository = copy_backends(work / "models")
    for config in (distance_fusion_config(), image_decoder_config(256)):
        (repository / config.name / "config.pbtxt").write_text(to_text(config))
    write_calibrations(repository / "distance_fusion" / "calibrations")
    with running_server(repository=repository, log=work / "log", triton_env=ROOT / ".triton") as running:
        yield running


def write_calibrations(folder: Path) -> None:
    """Two that can be used, and seven files that cannot."""
    folder.mkdir()
    good = CALIBRATION.to_json()

    def bad(release: int, **values: Any) -> str:
        return json.dumps({**json.loads(good), "release_id": release, **values})

    files = {
        RELEASE: good,
        OTHER: replace(CALIBRATION, release_id=OTHER).to_json(),
        NAN: bad(NAN, image_threshold=np.nan),
        FLAT: bad(FLAT, smoothing_sigma=1e6),
        DEEP: "[" * 100_000,
        FOREIGN: good,
        "notes": "{}",
    }
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "latin-1.json").write_bytes(b'{"category": "\xe9"}')
    (folder / f"{FOLDER}.json").mkdir()


def ask(
    server: TritonServer,
    model: str,
    tensors: dict[str, NDArray[Any]],
    parameters: dict[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    inputs = []
    for name, tensor in tensors.items():
        given = grpcclient.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
        inputs.append(given.set_data_from_numpy(tensor))
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer(model, inputs, client_timeout=TIMEOUT_S, parameters=parameters)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def fuse(
    server: TritonServer,
    distances: list[NDArray[np.float32]],
    *,
    release: int = RELEASE,
    parameters: dict[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {
        f"distance_{number}": stage for number, stage in enumerate(distances, start=1)
    }
    tensors["release_id"] = np.full((len(distances[0]), 1), release)
    return ask(server, "distance_fusion", tensors, parameters)


def refusal(server: TritonServer, *given: Any, model: str = "", **options: Any) -> tuple[str, str]:
    """Status and message of a request that must be refused."""
    with pytest.raises(InferenceServerException) as caught:
        ask(server, model, *given) if model else fuse(server, *given, **options)
    return str(caught.value.status()), str(caught.value.message())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_whose_distances_are_not_finite_gets_an_error_and_no_label(
    server: TritonServer, value: float
) -> None:
    distances = zeros(3)
    distances[1][2, 0, 0] = value
    expected = (INTERNAL, "image 3 of 3 cannot be judged: its distance maps are not finite")
    assert refusal(server, distances) == expected
    assert fuse(server, [stage[:2] for stage in distances])["pred_label"].tolist() == [[False], [False]]


def test_distances_of_another_image_size_get_an_error(server: TritonServer) -> None:
    status, message = refusal(server, zeros(1, 256))
    assert status == INTERNAL
    assert message.startswith("distance maps are [(64, 64), (32, 32), (16, 16)]; expected [(16, 16), ")


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e400", "1e39", "-0.1", "", "0,5", True, 10**30, np.nan, np.inf]
)
def test_a_threshold_that_cannot_be_used_is_an_invalid_argument(server: TritonServer, value: Any) -> None:
    parameters = {"threshold": str(value) if value == 10**30 else value}
    if value == 10**30:
        assert fuse(server, zeros(1), parameters=parameters)["pred_label"].tolist() == [[False]]
        return
    status, message = refusal(server, zeros(1), parameters=parameters)
    assert status == INVALID
    assert message.startswith("request parameter threshold is ")
    assert message.endswith("; expected a number from 0 to 3.4e+38")


@pytest.mark.parametrize("value", [0, 1, "0.25", 0.25])
def test_a_threshold_may_be_any_kind_of_number(server: TritonServer, value: Any) -> None:
    answer = fuse(server, [stage + np.float32(0.2) for stage in zeros(1)], parameters={"threshold": value})
    assert answer["threshold"].tolist() == [[np.float32(float(value))]]
    assert answer["pred_label"].tolist() == [[float(value) < 0.6]]


@pytest.mark.parametrize("name", ["score_only", "probe"])
def test_a_flag_of_another_kind_is_an_invalid_argument(server: TritonServer, name: str) -> None:
    status, message = refusal(server, zeros(1), parameters={name: "yes"})
    assert (status, message) == (INVALID, f"request parameter {name} is 'yes'; expected true or false")


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (NAN, "cannot be used (a calibration holds image_threshold nan, expected -3.403e+38 to 3.403e+38)"),
        (FLAT, "cannot be used (a calibration holds smoothing_sigma 1000000.0, expected 0 to 1024)"),
        (DEEP, "cannot be used (maximum recursion depth exceeded"),
        (FOLDER, "cannot be used ([Errno 21] Is a directory"),
        (FOREIGN, f"is of release {RELEASE}; expected {FOREIGN}"),
    ],
)
def test_a_bad_calibration_ends_its_own_release_alone(
    server: TritonServer, release: int, reason: str
) -> None:
    status, message = refusal(server, zeros(1), release=release)
    assert status == INTERNAL
    assert reason in message
    assert message.endswith("; publish the release again")
    for served in (RELEASE, OTHER):
        assert fuse(server, zeros(1), release=served)["release_id"].tolist() == [[served]]
    assert f"{release}.json is passed over" in server.log.read_text()


def test_images_of_two_releases_in_one_request_are_refused(server: TritonServer) -> None:
    tensors: dict[str, NDArray[Any]] = {f"distance_{n}": stage for n, stage in enumerate(zeros(2), start=1)}
    tensors["release_id"] = np.array([[RELEASE], [OTHER]])
    expected = (INTERNAL, f"one request holds images of weights [{RELEASE}, {OTHER}]")
    assert refusal(server, tensors, model="distance_fusion") == expected


def test_what_answers_with_the_warm_ups_release_passes_no_part(server: TritonServer) -> None:
    assert fuse(server, zeros(1, 256), release=0)["pred_label"].tolist() == [[True]]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_files_that_are_no_images_are_invalid_arguments_and_each_is_named(server: TritonServer) -> None:
    files = np.array([png(), b"", png(), b"nothing"], np.object_)[:, None]
    status, message = refusal(server, {"encoded_image": files}, model="image_decoder")
    assert status == INVALID
    first, second = message.split("; ")
    assert first == "image 2 of 4: encoded_image is empty"
    assert second.startswith("image 4 of 4: encoded_image is not an image of a known format")


def test_an_error_about_many_files_stays_short(server: TritonServer) -> None:
    files = np.full((128, 1), b"nothing", np.object_)
    status, message = refusal(server, {"encoded_image": files}, model="image_decoder")
    assert status == INVALID
    assert message.endswith("; and 118 more")
    assert len(message) < 2000

"""A served student whose distances are not finite for one image of a batch: an error that names it, and no verdict."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tritonclient.utils import InferenceServerException

from client import JudgeClient
from client.core.errors import ServerError
from deploy.server import TritonServer, running_server
from export.manifest import FileRecord, read_manifest
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny

pytestmark = pytest.mark.triton

SIDE = 64


def overflow_on_black(graph: Path) -> None:
    """Change a student so that black images, and they alone, have a stage 1 of NaN: 0 / their largest value."""
    model = onnx.load(graph)
    nodes = model.graph.node
    last = next(node for node in nodes if "distance_1" in node.output)
    last.output[0] = "finite_distance"
    zero, axes = np.zeros(1, np.float32), np.array([1, 2, 3])
    model.graph.initializer.extend(
        (numpy_helper.from_array(zero, "zero"), numpy_helper.from_array(axes, "pixels"))
    )
    nodes.extend(
        (
            helper.make_node("Cast", ["image"], ["pixels_as_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["pixels_as_float", "pixels"], ["brightest"], keepdims=1),
            helper.make_node("Div", ["zero", "brightest"], ["not_on_black"]),  # [B, 1, 1, 1]
            helper.make_node("Squeeze", ["not_on_black", "last_axis"], ["nothing"]),  # [B, 1, 1]
            helper.make_node("Add", ["finite_distance", "nothing"], ["distance_1"]),
        )
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "last_axis"))
    onnx.save(model, graph)


@pytest.fixture(scope="module")
def server(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    work = tmp_path_factory.mktemp("not_finite")
    build = Path(shutil.copytree(tiny_build / CATEGORY, work / CATEGORY))
    overflow_on_black(build / "student.onnx")
    manifest = read_manifest(tiny_build / CATEGORY)
    files = {**manifest.files, "student.onnx": FileRecord.of(build / "student.onnx")}
    manifest.model_copy(update={"files": files}).write(build)
    repository = copy_backends(work / "models")
    publish_tiny(build, repository)
    with running_server(repository=repository, log=work / "log", triton_env=ROOT / ".triton") as running:
        yield running


@pytest.mark.parametrize("score_only", [False, True])
def test_the_image_of_a_batch_is_named_and_the_others_are_judged_without_it(
    server: TritonServer, score_only: bool
) -> None:
    images = np.stack([np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in (200, 0, 100)])

    def ask(chosen: np.ndarray) -> grpcclient.InferResult:  # type: ignore[type-arg]
        given = grpcclient.InferInput("image", list(chosen.shape), "UINT8").set_data_from_numpy(chosen)
        outputs = [grpcclient.InferRequestedOutput("pred_label")]
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            return client.infer(
                CATEGORY,
                [given],
                outputs=outputs,
                client_timeout=TIMEOUT_S,
                parameters={"score_only": score_only},
            )

    with pytest.raises(
        InferenceServerException, match="image 2 of 3 cannot be judged: its distance maps are not finite"
    ):
        ask(images)
    assert ask(images[[0, 2]]).as_numpy("pred_label").shape == (2, 1)


def test_a_client_gets_an_error_and_no_verdict(server: TritonServer) -> None:
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        with pytest.raises(
            ServerError, match="image 1 of 1 cannot be judged: its distance maps are not finite"
        ):
            judge.judge(Image.new("RGB", (50, 40)))
        assert np.isfinite(judge.judge(Image.new("RGB", (50, 40), "gray")).score)

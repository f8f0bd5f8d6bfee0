"""Background removal on the real server: what it hides there is what PyTorch and numpy hide, with and without SAM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from client import load_image
from client.explaining.asking import explain
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import image_scores
from model_repository.foreground.foreground_mask import foreground_mask
from tests.conftest import TINY_OPTIONS
from tests.products import TIMEOUT_S, Product, make_product
from tests.tiny_sam import save_tiny_sam

pytestmark = [pytest.mark.triton, pytest.mark.slow]
pytest_plugins = ["tests.serving"]

MAX_MAP_DIFFERENCE = 1e-3


@pytest.fixture(scope="module", params=["threshold", "sam"])
def product(
    request: pytest.FixtureRequest,
    repository: Path,
    server: TritonServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Product]:
    """A tiny product whose background is removed, published while the server runs, and loaded."""
    weights_dir = tmp_path_factory.mktemp("weights")
    save_tiny_sam(weights_dir)
    made = make_product(
        f"capsule_{request.param}",
        "edge",
        {**TINY_OPTIONS, "image_size": 96, "foreground": request.param},
        repository,
        n_train=10,
        n_test_good=3,
        weights_dir=weights_dir,
    )
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        for model in (made.name, f"{made.name}_encoded"):
            client.load_model(model, client_timeout=TIMEOUT_S)
        yield made
        for model in (made.name, f"{made.name}_encoded"):
            client.unload_model(model, client_timeout=TIMEOUT_S)


def ask(server: TritonServer, model: str, **tensors: NDArray[Any]) -> NDArray[np.float32]:
    """The anomaly map that a model of the server gives."""
    inputs = []
    for name, tensor in tensors.items():
        given = grpcclient.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
        given.set_data_from_numpy(tensor)
        inputs.append(given)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer(model, inputs, client_timeout=TIMEOUT_S)
    return np.asarray(answer.as_numpy("anomaly_map"))


def test_shares_of_the_stages_sum_to_the_score(server: TritonServer, product: Product) -> None:
    """What the mask hides it hides from each stage alone too."""
    image = load_image(product.data.test[0].path)
    with product.connect(server) as judge:
        explanation = explain(judge, image, name="a.png")
        score = judge.score(image).score
    assert sum(stage.contribution for stage in explanation.stages) == pytest.approx(score, rel=1e-4)


def test_served_maps_and_scores_are_pytorchs_and_numpys(server: TritonServer, product: Product) -> None:
    assert product.checkpoint.calibration.foreground == product.name.removeprefix("capsule_")
    with product.connect(server) as judge:
        for index, image in enumerate(product.data.test):
            verdict = judge.judge(load_image(image.path))
            encoded = judge.judge(image.path.read_bytes())
            expected = product.expected.anomaly_map[index]
            hidden = expected == 0
            assert 0.05 < hidden.mean() < 0.95
            # On a mask's very edge SAM's logits may round to either side.
            assert ((verdict.anomaly_map == 0) != hidden).mean() < MAX_MAP_DIFFERENCE
            on_part = (verdict.anomaly_map != 0) & ~hidden
            np.testing.assert_allclose(
                verdict.anomaly_map[on_part], expected[on_part], rtol=1e-4, atol=MAX_MAP_DIFFERENCE
            )
            share = product.checkpoint.calibration.score_share
            assert verdict.score == pytest.approx(image_scores(verdict.anomaly_map[None], share)[0], rel=1e-6)
            score = product.expected.pred_score[index, 0]
            assert verdict.score == pytest.approx(score, rel=1e-4, abs=MAX_MAP_DIFFERENCE)
            assert verdict.score == pytest.approx(encoded.score, abs=1e-5)
            assert verdict.threshold == np.float32(product.checkpoint.calibration.image_threshold)
            assert verdict.release_id == product.checkpoint.release_id


def test_the_step_gives_the_mask_for_a_batch(server: TritonServer, product: Product) -> None:
    pixels = product.pixels[:3]
    maps = ask(server, product.name, image=pixels)
    assert maps.shape == (3, 96, 96)
    if product.checkpoint.calibration.foreground == "threshold":
        np.testing.assert_array_equal(maps == 0, ~foreground_mask(pixels))


def distances(product: Product, side: int) -> dict[str, NDArray[Any]]:
    maps = {
        f"distance_{stage}": np.ones((1, side // stride, side // stride), np.float32)
        for stage, stride in ((1, 4), (2, 8), (3, 16))
    }
    return {**maps, "release_id": np.array([[product.checkpoint.weights_id]], np.int64)}


def test_the_fusion_refuses_a_mask_too_few_or_too_many(
    server: TritonServer, product: Product, edge: Product
) -> None:
    """As after an ensemble that was written by hand."""
    masked, whole = distances(product, 96), distances(edge, 128)
    mask = np.zeros((1, 96, 96), bool)
    with pytest.raises(
        InferenceServerException, match="image 1 of 1 cannot be judged: its foreground mask hides all of it"
    ):
        ask(server, "distance_fusion", **masked, foreground=mask)
    mask[:, 40:50, 40:50] = True
    np.testing.assert_array_equal(ask(server, "distance_fusion", **masked, foreground=mask) > 0, mask)
    assert (ask(server, "distance_fusion", **whole) > 0).all()
    method = product.checkpoint.calibration.foreground
    with pytest.raises(
        InferenceServerException,
        match=rf"release \d+ was calibrated with foreground '{method}', but its ensemble gives no foreground mask",
    ):
        ask(server, "distance_fusion", **masked)
    with pytest.raises(
        InferenceServerException,
        match=r"release \d+ was calibrated with the background, but its ensemble gives a foreground mask",
    ):
        ask(server, "distance_fusion", **whole, foreground=np.ones((1, 128, 128), bool))
    with pytest.raises(
        InferenceServerException, match=r"foreground has shape \[1, 64, 64\]; expected .* \[1, 96, 96\]"
    ):
        ask(server, "distance_fusion", **masked, foreground=mask[:, :64, :64])

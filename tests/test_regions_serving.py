"""Regions on the real server: what is ignored there is what PyTorch ignores, in both ensembles and in explanations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image

from client import load_image
from client.explaining.asking import explain
from deploy.server import TritonServer
from model_repository.distance_fusion.fusion_regions import inspected_pixels
from tests.conftest import TINY_OPTIONS
from tests.products import TIMEOUT_S, Product, make_product

pytestmark = [pytest.mark.triton, pytest.mark.slow]
pytest_plugins = ["tests.serving"]

# On pictures of 160 x 160 pixels: the left half without its upper corner.
DRAWN = {
    "picture": (160, 160),
    "inspect": (((0, 0), (80, 0), (80, 160), (0, 160)),),
    "ignore": (((0, 0), (60, 0), (0, 60)),),
}
MAX_MAP_DIFFERENCE = 1e-3


@pytest.fixture(scope="module")
def product(repository: Path, server: TritonServer) -> Iterator[Product]:
    """A tiny product with regions, published while the server runs, and loaded."""
    options = {**TINY_OPTIONS, "regions": DRAWN}
    made = make_product("bracket", "edge", options, repository, n_train=10, n_test_good=2)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        for model in (made.name, f"{made.name}_encoded"):
            client.load_model(model, client_timeout=TIMEOUT_S)
        yield made
        for model in (made.name, f"{made.name}_encoded"):
            client.unload_model(model, client_timeout=TIMEOUT_S)


def test_served_maps_and_scores_are_pytorchs(server: TritonServer, product: Product) -> None:
    calibration = product.checkpoint.calibration
    assert calibration.regions is not None
    inspected = inspected_pixels(calibration.regions, (64, 64))
    assert 0.4 < inspected.mean() < 0.5
    with product.connect(server) as judge:
        for index, image in enumerate(product.data.test):
            verdict = judge.judge(load_image(image.path))
            encoded = judge.judge(image.path.read_bytes())
            expected = product.expected.anomaly_map[index]
            assert not verdict.anomaly_map[~inspected].any()
            assert verdict.anomaly_map[inspected].all()
            np.testing.assert_allclose(verdict.anomaly_map, expected, rtol=1e-4, atol=MAX_MAP_DIFFERENCE)
            assert verdict.score == pytest.approx(product.expected.pred_score[index, 0], rel=1e-4)
            assert verdict.score == pytest.approx(encoded.score, abs=1e-5)
            assert verdict.score == pytest.approx(judge.score(load_image(image.path)).score, rel=1e-5)
            assert verdict.release_id == product.checkpoint.release_id


def test_a_blot_in_an_ignored_place_is_not_reported_and_one_beside_it_is(
    server: TritonServer, product: Product
) -> None:
    good = next(image.path for image in product.data.test if not image.anomalous)

    def blotted(left: int) -> Image.Image:
        pixels = np.asarray(load_image(good)).copy()
        pixels[60:100, left : left + 40] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
        return Image.fromarray(pixels)

    with product.connect(server) as judge:
        inside, outside = (judge.judge(blotted(left), min_area=1) for left in (20, 110))
        assert inside.score > outside.score
        assert inside.defects
        assert max(defect.left + defect.width for defect in inside.defects) <= 81
        assert not [defect for defect in outside.defects if defect.left + defect.width > 81]
        # What stands in the ignored half reaches the other one through the networks' view alone.
        assert abs(outside.score - judge.judge(load_image(good)).score) < inside.score - outside.score


def test_shares_of_the_stages_sum_to_the_score(server: TritonServer, product: Product) -> None:
    image = load_image(product.data.test[0].path)
    with product.connect(server) as judge:
        explanation = explain(judge, image, name="a.png")
        score = judge.score(image).score
    assert sum(stage.contribution for stage in explanation.stages) == pytest.approx(score, rel=1e-4)
    assert explanation.maximum.x <= 80

"""Pictures of several shapes, judged as they are within a rectangle: training, the gate, server and client alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import JudgeClient, load_image
from client.explaining.asking import explain
from deploy.server import TritonServer, running_server
from export.parity.gate import verify_category
from export.product import ProductPaths
from model_repository.distance_fusion.map_fusion import n_scored
from model_repository.image_decoder.resizing import fitted_part
from tests.conftest import CATEGORY, FitTiny
from tests.products import ROOT, TIMEOUT_S, publish_tiny
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData, read_category
from train.evaluation.evaluate import Evaluation, evaluate
from train.support.devices import Runtime

pytestmark = pytest.mark.triton
SIZE = (64, 96)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rectangle")


@pytest.fixture(scope="module")
def long_data(work: Path, tiny_data: CategoryData) -> CategoryData:
    """The tiny category's pictures and masks, every other one cut to its middle rows: 64 x 64 and 64 x 32 pixels."""
    root = work / "data" / CATEGORY
    for path in sorted(tiny_data.root.rglob("*.png")):
        place = root / path.relative_to(tiny_data.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        number = int(path.stem.removesuffix("_mask"))
        cut = (0, 16, 64, 48) if number % 2 and path.parent.name == "good" else (0, 0, 64, 64)
        Image.open(path).crop(cut).save(place)
    return read_category(root, dataset="folder", category=CATEGORY)


@pytest.fixture(scope="module")
def product(work: Path, long_data: CategoryData, fit_tiny: FitTiny) -> ProductPaths:
    return publish_tiny(long_data, work, fit_tiny, image_size="64x96", foreground="threshold")


@pytest.fixture(scope="module")
def evaluated(product: ProductPaths, long_data: CategoryData) -> Evaluation:
    evaluation = evaluate(load_checkpoint(product.checkpoint), long_data, runtime=Runtime("cpu"))
    assert evaluation is not None
    return evaluation


@pytest.fixture(scope="module")
def server(work: Path, product: ProductPaths) -> Iterator[TritonServer]:
    with running_server(
        repository=work / "model_repository", log=work / "tritonserver.log", triton_env=ROOT / ".triton"
    ) as running:
        yield running


@pytest.fixture
def judge(server: TritonServer) -> Iterator[JudgeClient]:
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as client:
        yield client


def test_the_client_learns_size_and_shape_from_the_server(judge: JudgeClient) -> None:
    assert (judge.image_size, judge.keep_aspect) == (SIZE, True)


def test_what_is_filled_beside_a_picture_does_not_count(
    judge: JudgeClient, product: ProductPaths, long_data: CategoryData
) -> None:
    calibration = load_checkpoint(product.checkpoint).calibration
    assert calibration.picture_only
    n_highest = n_scored(SIZE[0] * SIZE[1], calibration.score_share)
    for image in long_data.test:
        for sent in (image.path.read_bytes(), load_image(image.path)):
            verdict = judge.judge(sent)
            assert verdict.anomaly_map.size > n_highest
            highest = np.sort(verdict.anomaly_map.ravel())[-n_highest:]
            assert verdict.score == pytest.approx(float(highest.mean()), rel=1e-5)


def test_files_and_pixels_are_judged_as_in_training(
    judge: JudgeClient, long_data: CategoryData, evaluated: Evaluation
) -> None:
    expected = evaluated.judged.verdict
    shapes = set()
    for index, image in enumerate(long_data.test):
        picture = load_image(image.path)
        seen = fitted_part(picture.size, SIZE)
        shapes.add(expected.anomaly_map[index][seen].shape)
        for sent in (image.path.read_bytes(), picture):
            verdict = judge.judge(sent)
            assert verdict.score == pytest.approx(float(expected.pred_score[index, 0]), abs=1e-4)
            np.testing.assert_allclose(
                verdict.anomaly_map, expected.anomaly_map[index][seen], rtol=0, atol=1e-4
            )
            assert verdict.original_size == picture.size
            assert verdict.map_at_original_size().shape == picture.size[::-1]
            for defect in verdict.defects:
                assert 0 <= defect.left < defect.left + defect.width <= picture.width
                assert 0 <= defect.top < defect.top + defect.height <= picture.height
    assert shapes == {(64, 64), (48, 96)}


def test_the_gate_judges_the_files_alike(server: TritonServer, product: ProductPaths) -> None:
    result = verify_category(product, url=server.grpc_url)
    assert {agreement.judge for agreement in result.agreements} >= {"live fp32", "live fp32, encoded"}
    assert max(agreement.max_score_difference for agreement in result.agreements) < 1e-4


def test_an_explanation_shows_the_picture_alone(judge: JudgeClient, long_data: CategoryData) -> None:
    image = next(image.path for image in long_data.test if load_image(image.path).size == (64, 64))
    explanation = explain(judge, load_image(image), name="a")
    assert explanation.verdict.anomaly_map.shape == (64, 64)
    assert [stage.distances.shape for stage in explanation.stages] == [(16, 16), (8, 8), (4, 4)]

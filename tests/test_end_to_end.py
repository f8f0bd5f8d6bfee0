"""Good images in, verdicts over gRPC out: what the real server says is what PyTorch says, for both presets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from client import JudgeClient, load_image
from client.report import auroc
from deploy.server import TritonServer
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS, image_scores
from model_repository.image_decoder.image_decoding import decode_image
from tests.products import TIMEOUT_S, Product

pytestmark = pytest.mark.triton
pytest_plugins = ["tests.serving"]

MAX_MAP_DIFFERENCE = 1e-3


@pytest.fixture(scope="module", params=["edge", pytest.param("paper", marks=pytest.mark.slow)])
def product(request: pytest.FixtureRequest) -> Product:
    chosen: Product = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def judge(server: TritonServer, product: Product) -> Iterator[JudgeClient]:
    with product.connect(server) as client:
        yield client


def ask(
    server: TritonServer,
    model: str,
    tensor: NDArray[Any],
    *,
    outputs: tuple[str, ...] = VERDICT_OUTPUTS,
    parameters: dict[str, str] | None = None,
) -> dict[str, NDArray[Any]]:
    """A plain tritonclient request with a whole batch."""
    name = "encoded_image" if model.endswith("_encoded") else "image"
    given = grpcclient.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    given.set_data_from_numpy(tensor)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer(
            model,
            [given],
            outputs=[grpcclient.InferRequestedOutput(output) for output in outputs],
            client_timeout=TIMEOUT_S,
            parameters=parameters,
        )
    return {output: answer.as_numpy(output) for output in outputs}


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def photograph(product: Product, index: int, size: tuple[int, int]) -> Image.Image:
    """A test image in another size (width, height)."""
    return load_image(product.data.test[index].path).resize(size)


def test_reference_maps_differ_by_far_more_than_the_tolerance(product: Product) -> None:
    first, *others = product.expected.anomaly_map
    assert product.expected.anomaly_map.shape == product.pixels.shape[:3]
    assert np.ptp(first) > 100 * MAX_MAP_DIFFERENCE
    assert min(np.abs(first - other).max() for other in others) > 10 * MAX_MAP_DIFFERENCE


def test_served_verdict_is_pytorchs(judge: JudgeClient, product: Product) -> None:
    expected, calibration = product.expected, product.checkpoint.calibration
    for index, image in enumerate(product.data.test):
        verdict = judge.judge(load_image(image.path))
        assert verdict.anomaly_map.dtype == np.float32
        np.testing.assert_allclose(
            verdict.anomaly_map, expected.anomaly_map[index], rtol=1e-4, atol=MAX_MAP_DIFFERENCE
        )
        (score,) = image_scores(verdict.anomaly_map[None], calibration.score_share)
        assert verdict.score == pytest.approx(score, rel=1e-6)
        assert verdict.score == pytest.approx(expected.pred_score[index, 0], abs=MAX_MAP_DIFFERENCE)
        assert verdict.threshold == np.float32(calibration.image_threshold)
        assert verdict.anomalous == expected.pred_label[index, 0]
        assert verdict.release_id == product.checkpoint.release_id
        np.testing.assert_array_equal(
            verdict.mask, verdict.anomaly_map > np.float32(calibration.pixel_threshold)
        )
        clear = np.abs(expected.anomaly_map[index] - calibration.pixel_threshold) > MAX_MAP_DIFFERENCE
        np.testing.assert_array_equal(verdict.mask[clear], expected.pred_mask[index][clear])


def test_auroc_of_served_scores_is_that_of_metrics_json(judge: JudgeClient, product: Product) -> None:
    scores = [judge.judge(load_image(image.path)).score for image in product.data.test]
    served = auroc(np.array(scores), np.array([image.anomalous for image in product.data.test]))
    assert served == pytest.approx(product.metrics["image_auroc"], abs=0.0005)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_encoded_image_is_judged_as_the_decoded_one(
    judge: JudgeClient, product: Product, form: str
) -> None:
    encoded = encode(photograph(product, -1, (200, 140)), form)
    there, here = judge.judge(encoded), judge.judge(decode_image(encoded))
    np.testing.assert_allclose(there.anomaly_map, here.anomaly_map, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(there.mask, here.mask)
    assert (there.score, there.threshold) == pytest.approx((here.score, here.threshold), abs=1e-5)
    assert (there.anomalous, there.release_id) == (here.anomalous, here.release_id)


def test_original_size_is_height_and_width_of_the_upright_image(
    server: TritonServer, product: Product
) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be shown turned by a quarter
    files = [
        encode(photograph(product, 0, (200, 140)), "PNG"),
        encode(photograph(product, 0, (64, 32)), "JPEG", exif=rotated),
    ]
    answer = ask(
        server,
        f"{product.name}_encoded",
        np.array(files, np.object_)[:, None],
        outputs=("original_size", *VERDICT_OUTPUTS),
    )
    assert answer["original_size"].dtype == np.int32
    assert answer["original_size"].tolist() == [[140, 200], [64, 32]]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_batch_of_three_equals_three_single_requests(
    server: TritonServer, product: Product, encoded: bool
) -> None:
    if encoded:
        paths = [image.path for image in product.data.test[-3:]]
        model, batch = (
            f"{product.name}_encoded",
            np.array([[path.read_bytes()] for path in paths], np.object_),
        )
    else:
        model, batch = product.name, product.pixels[-3:]
    together = ask(server, model, batch)
    for index in range(3):
        alone = ask(server, model, batch[index : index + 1])
        for name in ("anomaly_map", "pred_score"):
            np.testing.assert_allclose(together[name][index], alone[name][0], rtol=0, atol=1e-4)
        for name in ("pred_label", "threshold", "release_id"):
            np.testing.assert_array_equal(together[name][index], alone[name][0])
    np.testing.assert_allclose(
        together["anomaly_map"], product.expected.anomaly_map[-3:], rtol=0, atol=MAX_MAP_DIFFERENCE
    )


def test_a_requests_threshold_replaces_the_releases(judge: JudgeClient, product: Product) -> None:
    image = load_image(product.data.test[0].path)
    plain = judge.judge(image)
    for threshold, anomalous in ((plain.score - 0.01, True), (plain.score + 0.01, False)):
        for verdict in (
            judge.judge(image, threshold=threshold),
            judge.judge(product.data.test[0].path.read_bytes(), threshold=threshold),
        ):
            assert verdict.threshold == np.float32(threshold)
            assert verdict.anomalous is anomalous
            assert verdict.score == pytest.approx(plain.score, abs=1e-5)
    assert judge.judge(image).threshold == plain.threshold  # of that request alone


@pytest.mark.parametrize("threshold", ["high", "nan", "inf", "1e400", "-1"])
def test_a_threshold_that_cannot_be_used_is_refused(
    server: TritonServer, product: Product, threshold: str
) -> None:
    expected = f"request parameter threshold is '{threshold}'; expected a number from 0 to"
    with pytest.raises(InferenceServerException, match=expected) as caught:
        ask(server, product.name, product.pixels[:1], parameters={"threshold": threshold})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_broken_file_of_a_batch_is_named(server: TritonServer, product: Product) -> None:
    good = product.data.test[0].path.read_bytes()
    batch = np.array([good, good[:200], good], np.object_)[:, None]
    with pytest.raises(InferenceServerException, match="image 2 of 3: encoded_image is truncated") as caught:
        ask(server, f"{product.name}_encoded", batch)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.slow
def test_mixed_requests_at_the_same_time_each_get_their_own_release(
    server: TritonServer, edge: Product, paper: Product
) -> None:
    assert edge.checkpoint.release_id != paper.checkpoint.release_id
    requests = [(product, index) for index in range(len(paper.pixels)) for product in (edge, paper, edge)]
    with ThreadPoolExecutor(max_workers=6) as pool:
        answers = list(
            pool.map(
                lambda request: ask(server, request[0].name, request[0].pixels[request[1] : request[1] + 1]),
                requests,
            )
        )
    for (product, index), answer in zip(requests, answers, strict=True):
        assert answer["release_id"].tolist() == [[product.checkpoint.release_id]]
        np.testing.assert_allclose(
            answer["anomaly_map"][0], product.expected.anomaly_map[index], rtol=0, atol=MAX_MAP_DIFFERENCE
        )

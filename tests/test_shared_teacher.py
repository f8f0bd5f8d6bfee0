"""Two categories over one teacher on the real server: their traffic shares its batches, and no verdict goes astray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray

from deploy.server import TritonServer, running_server
from export.serving.steps import teacher_name
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from tests.conftest import TINY_OPTIONS
from tests.products import ROOT, TIMEOUT_S, Product, copy_backends, make_product, reference_verdict

pytestmark = [pytest.mark.triton, pytest.mark.slow]

IN_FLIGHT = 8
REQUESTS = 200
MAX_MAP_DIFFERENCE = 1e-3
TEACHER = teacher_name(TINY_OPTIONS["teacher"], TINY_OPTIONS["image_size"])


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, ...]]:
    """Two tiny categories; weights drawn from the same seed make one teacher of theirs."""
    work = tmp_path_factory.mktemp("shared_teacher")
    repository = work / "model_repository"
    copy_backends(repository)
    yield tuple(
        make_product(category, "edge", TINY_OPTIONS, repository, n_train=10, n_test_good=3)
        for category in ("bolt", "washer")
    )
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def server(products: tuple[Product, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("server") / "tritonserver.log"
    with running_server(repository=products[0].repository, log=log, triton_env=ROOT / ".triton") as running:
        yield running


def teacher_counts(client: grpcclient.InferenceServerClient) -> NDArray[np.int64]:
    """Images that the teacher has seen, and the batches that they came in."""
    (statistics,) = client.get_inference_statistics(TEACHER, client_timeout=TIMEOUT_S).model_stats
    return np.array([statistics.inference_count, statistics.execution_count])


def test_there_is_one_teacher(products: tuple[Product, ...]) -> None:
    repository = products[0].repository
    assert [path.name for path in repository.glob("teacher_*")] == [TEACHER]
    versions = [path.name for path in (repository / TEACHER).iterdir() if path.is_dir()]
    assert versions == ["1"]
    assert len({product.checkpoint.release_id for product in products}) == len(products)


def test_mixed_traffic_shares_the_teachers_batches_and_each_gets_its_own_verdict(
    server: TritonServer, products: tuple[Product, ...]
) -> None:
    with grpcclient.InferenceServerClient(server.grpc_url) as client:

        def ask(number: int) -> None:
            product = products[number % len(products)]
            index = number // len(products) % len(product.pixels)
            image = grpcclient.InferInput("image", [1, *product.pixels.shape[1:]], "UINT8")
            image.set_data_from_numpy(product.pixels[index : index + 1])
            outputs = [grpcclient.InferRequestedOutput(name) for name in VERDICT_OUTPUTS]
            answer = client.infer(product.name, [image], outputs=outputs, client_timeout=TIMEOUT_S)
            assert answer.as_numpy("release_id").tolist() == [[product.checkpoint.release_id]]
            np.testing.assert_allclose(
                answer.as_numpy("anomaly_map")[0],
                product.expected.anomaly_map[index],
                rtol=0,
                atol=MAX_MAP_DIFFERENCE,
            )

        before = teacher_counts(client)
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(ask, range(REQUESTS)))
        images, batches = teacher_counts(client) - before
    assert images == REQUESTS
    assert batches < images


def test_the_two_categories_judge_one_image_differently(products: tuple[Product, ...]) -> None:
    """Else a verdict of the wrong one could not be told."""
    bolt, washer = products
    swapped = reference_verdict(washer.checkpoint, bolt.pixels)
    differences = np.abs(swapped.anomaly_map - bolt.expected.anomaly_map).max(axis=(1, 2))
    assert (differences > 10 * MAX_MAP_DIFFERENCE).all()

"""Half precision on the real server: published beside float32, switched to, and verified live."""

from __future__ import annotations

from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from deploy.server import TritonServer
from export.agreement import LIMITS, Limits
from export.builds.up_to_date import build_category
from export.errors import ExportError, PublishError
from export.manifest import read_manifest
from export.parity.gate import GateResult, verify_category
from export.parity.live import LiveJudge
from export.product import ProductPaths
from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.steps import decoder_name
from tests.conftest import TINY_OPTIONS
from tests.products import MAX_BATCH_SIZE, TIMEOUT_S, Product, make_product, unused_url

pytestmark = [pytest.mark.triton, pytest.mark.slow]
pytest_plugins = ["tests.serving"]

DECODER = decoder_name(TINY_OPTIONS["image_size"])
LOOSE = Limits(auroc_loss=1, pro_loss=1, flips=1, false_reject_change=1)  # of untrained networks


@pytest.fixture(scope="module")
def product(repository: Path, server: TritonServer) -> Product:
    """A tiny product, published in float32 while the server runs, and loaded."""
    made = make_product("bolt", "edge", TINY_OPTIONS, repository, n_train=10, n_test_good=3)
    load(server, made.name, f"{made.name}_encoded")
    with made.connect(server) as judge:
        assert judge.precision == "fp32"
    return made


def load(server: TritonServer, *models: str) -> None:
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        for model in models:
            client.load_model(model, client_timeout=TIMEOUT_S)


def verify(server: TritonServer, product: Product, **limits: Limits) -> GateResult:
    work = product.repository.parent
    paths = ProductPaths(product.name, work / "runs", work / "build")
    return verify_category(paths, url=server.grpc_url, limits={**LIMITS, **limits})


def test_live_float32_judges_as_pytorch_does(server: TritonServer, product: Product) -> None:
    result = verify(server, product)
    judges = ["ONNX fp32", "live fp32", "live fp32, encoded"]
    assert [agreement.judge for agreement in result.agreements] == judges
    assert result.accepted, [agreement.beyond_limits for agreement in result.agreements]
    assert result.flipped == []
    recorded = read_manifest(product.build).agreements
    assert [agreement.judge for agreement in recorded] == ["ONNX fp32", "live fp32", "live fp32, encoded"]


def test_another_resize_in_the_server_is_caught(server: TritonServer, product: Product) -> None:
    """Files are resized by the server; one that does it otherwise judges other pixels."""
    backend = product.repository / DECODER / "1" / "resizing.py"
    right = backend.read_text()
    wrong = right.replace("Resampling.BILINEAR", "Resampling.NEAREST")
    assert wrong != right
    try:
        backend.write_text(wrong)
        load(server, DECODER)
        result = verify(server, product)
        refused = {agreement.judge for agreement in result.agreements if not agreement.accepted}
        assert refused == {"live fp32, encoded"}
        with pytest.raises(PublishError, match="live fp32, encoded: map difference"):
            publish_category(
                product.build,
                repository=product.repository,
                platform=Platform(max_batch_size=MAX_BATCH_SIZE),
                read_graph=read_onnx_file,
            )
    finally:
        backend.write_text(right)
        load(server, DECODER)
    assert verify(server, product).accepted


def test_half_is_switched_to_and_verified_live(server: TritonServer, product: Product) -> None:
    work = product.repository.parent
    build_category(ProductPaths(product.name, work / "runs", work / "build"), "fp16", limits=LOOSE)
    publish_category(
        product.build / "fp16",
        repository=product.repository,
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
    )
    load(server, product.name, f"{product.name}_encoded")
    with product.connect(server) as judge:
        assert judge.precision == "fp16"
    result = verify(server, product, fp16=LOOSE)
    by_judge = {agreement.judge: agreement for agreement in result.agreements}
    assert set(by_judge) == {"live fp16", "live fp16, encoded", "ONNX fp32", "ONNX fp16"}
    live, offline = by_judge["live fp16"], by_judge["ONNX fp16"]
    largest = float(product.expected.anomaly_map.max())
    assert 0 < live.max_map_difference < 0.02 * largest
    assert live.mean_map_difference == pytest.approx(offline.mean_map_difference, rel=0.05)


def test_another_release_or_no_server_is_told(server: TritonServer, product: Product) -> None:
    with pytest.raises(ExportError, match=r"serves release .* expected 1; publish the build"):
        LiveJudge(server.grpc_url, category=product.name, release_id=1)
    with pytest.raises(ExportError, match="'nut' is not served"):
        LiveJudge(server.grpc_url, category="nut", release_id=1)
    with pytest.raises(ExportError, match="No Triton server answers"):
        LiveJudge(unused_url(), category=product.name, release_id=1)

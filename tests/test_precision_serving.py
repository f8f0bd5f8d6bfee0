"""Half precision on the real server: published beside float32, switched to, and verified live."""

from __future__ import annotations

from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from deploy.server import TritonServer
from export.agreement import LIMITS, Limits
from export.errors import ExportError
from export.gate import GateResult, verify_category
from export.live import LiveJudge
from export.manifest import read_manifest
from export.precisions import build_precision
from export.publish import publish_category
from tests.conftest import TINY_OPTIONS
from tests.products import MAX_BATCH_SIZE, TIMEOUT_S, Product, make_product, unused_url

pytestmark = [pytest.mark.triton, pytest.mark.slow]
pytest_plugins = ["tests.serving"]

LOOSE = Limits(auroc_loss=1, pro_loss=1, flips=1, false_reject_change=1)  # of untrained networks


@pytest.fixture(scope="module")
def product(repository: Path, server: TritonServer) -> Product:
    """A tiny product, published in float32 while the server runs, and loaded."""
    made = make_product("bolt", "edge", TINY_OPTIONS, repository, n_train=10, n_test_good=3)
    load(server, made)
    with made.connect(server) as judge:
        assert judge.precision == "fp32"
    return made


def load(server: TritonServer, product: Product) -> None:
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model(product.name, client_timeout=TIMEOUT_S)


def verify(server: TritonServer, product: Product, **limits: Limits) -> GateResult:
    work = product.repository.parent
    return verify_category(
        product.name,
        runs_dir=work / "runs",
        build_dir=work / "build",
        images_dir=None,
        url=server.grpc_url,
        limits={**LIMITS, **limits},
    )


def test_live_float32_judges_as_pytorch_does(server: TritonServer, product: Product) -> None:
    result = verify(server, product)
    assert [agreement.judge for agreement in result.agreements] == ["live fp32", "ONNX fp32"]
    assert result.accepted, [agreement.beyond_limits for agreement in result.agreements]
    assert result.flipped == []
    kept = read_manifest(product.build).agreements
    assert [agreement.judge for agreement in kept] == ["ONNX fp32", "live fp32"]


def test_half_is_switched_to_and_verified_live(server: TritonServer, product: Product) -> None:
    work = product.repository.parent
    build_precision(
        product.name,
        "fp16",
        runs_dir=work / "runs",
        build_dir=work / "build",
        images_dir=None,
        force=False,
        limits=LOOSE,
    )
    publish_category(
        product.build / "fp16",
        repository=product.repository,
        platform="python",
        max_batch_size=MAX_BATCH_SIZE,
    )
    load(server, product)
    with product.connect(server) as judge:
        assert judge.precision == "fp16"
    result = verify(server, product, fp16=LOOSE)
    found = {agreement.judge: agreement for agreement in result.agreements}
    assert set(found) == {"live fp16", "ONNX fp32", "ONNX fp16"}
    live, offline = found["live fp16"], found["ONNX fp16"]
    assert 0 < live.max_map_difference < 0.1
    assert live.mean_map_difference == pytest.approx(offline.mean_map_difference, rel=0.05)


def test_another_release_or_no_server_is_told(server: TritonServer, product: Product) -> None:
    with pytest.raises(ExportError, match=r"serves release .* expected 1; publish the build"):
        LiveJudge(server.grpc_url, category=product.name, release_id=1)
    with pytest.raises(ExportError, match="'nut' is not served"):
        LiveJudge(server.grpc_url, category="nut", release_id=1)
    with pytest.raises(ExportError, match="No Triton server answers"):
        LiveJudge(unused_url(), category=product.name, release_id=1)

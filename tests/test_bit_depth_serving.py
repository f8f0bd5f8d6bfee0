"""12 bits in 16-bit files: training, the gate, the encoded ensemble and the client see the same pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from client import JudgeClient, load_image
from client.core.errors import ServerError
from deploy.server import TritonServer, running_server
from export.parity.gate import verify_category
from export.product import ProductPaths
from tests.conftest import CATEGORY, FitTiny
from tests.products import ROOT, TIMEOUT_S, publish_tiny
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData, read_category
from train.evaluation.evaluate import Evaluation, evaluate
from train.support.devices import Runtime

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deep")


@pytest.fixture(scope="module")
def deep_data(work: Path, tiny_data: CategoryData) -> CategoryData:
    """The tiny category's grey values as 12 bits in 16-bit PNG and TIFF files, each with 4 bits of its own."""
    noise = np.random.default_rng(0)
    root = work / "data" / CATEGORY
    for index, path in enumerate(sorted(tiny_data.root.rglob("*.png"))):
        place = root / path.relative_to(tiny_data.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        if "ground_truth" in path.parts:
            Image.open(path).save(place)
        else:
            frame = Image.fromarray(grey * 16 + noise.integers(0, 16, grey.shape, np.uint16))
            frame.save(place.with_suffix((".png", ".tif")[index % 2]))
    return read_category(root, dataset="folder", category=CATEGORY)


@pytest.fixture(scope="module")
def product(work: Path, deep_data: CategoryData, fit_tiny: FitTiny) -> ProductPaths:
    return publish_tiny(deep_data, work, fit_tiny, steps=4)


@pytest.fixture(scope="module")
def evaluated(product: ProductPaths, deep_data: CategoryData) -> Evaluation:
    evaluation = evaluate(load_checkpoint(product.checkpoint), deep_data, runtime=Runtime("cpu"))
    assert evaluation is not None
    return evaluation


@pytest.fixture(scope="module")
def server(work: Path, product: ProductPaths) -> Iterator[TritonServer]:
    with running_server(
        repository=work / "model_repository", log=work / "tritonserver.log", triton_env=ROOT / ".triton"
    ) as running:
        yield running


def test_files_and_pixels_are_judged_as_in_training(
    server: TritonServer, deep_data: CategoryData, evaluated: Evaluation
) -> None:
    expected = evaluated.judged.verdict.pred_score[:, 0]
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        assert judge.bit_depth == 12
        paths = [image.path for image in deep_data.test]
        files = [judge.judge(path.read_bytes()).score for path in paths]
        pixels = [judge.judge(load_image(path, bit_depth=judge.bit_depth)).score for path in paths]
    np.testing.assert_allclose(files, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-4)


def test_8_bit_files_are_judged_beside_them(server: TritonServer, deep_data: CategoryData) -> None:
    """The camera's frames saved with 8 bits differ by their rounding alone, as JPEG by its losses."""
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
        frame = load_image(deep_data.test[0].path, bit_depth=12)
        deep = judge.judge(deep_data.test[0].path.read_bytes()).score
        for kind, options in (("PNG", {}), ("JPEG", {"quality": 100})):
            buffer = io.BytesIO()
            frame.save(buffer, kind, **options)
            assert judge.judge(buffer.getvalue()).score == pytest.approx(deep, rel=0.05)


def test_the_gate_judges_the_files_alike(server: TritonServer, product: ProductPaths) -> None:
    result = verify_category(product, url=server.grpc_url)
    judges = {agreement.judge: agreement for agreement in result.agreements}
    assert {"live fp32", "live fp32, encoded", "ONNX fp32"} <= judges.keys()
    assert max(agreement.max_score_difference for agreement in judges.values()) < 1e-4


def test_a_brighter_file_is_refused_by_the_server(server: TritonServer) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 9000, np.uint16)).save(buffer, "PNG")
    with (
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
        pytest.raises(
            (ServerError, InferenceServerException),
            match=r"has uint16 values up to 9,000; expected at most 4,095, the white of 12 bits a channel",
        ),
    ):
        judge.judge(buffer.getvalue())

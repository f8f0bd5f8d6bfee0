"""Pictures of any size, judged at their own by one release: training on crops, the gate, server and client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import JudgeClient, Verdict, load_image
from client.core.errors import RefusedImage, ServerError
from client.explaining.asking import explain
from deploy.protection.protection import Protection
from deploy.server import TritonServer, running_server
from export.manifest import read_manifest
from export.parity.gate import verify_category
from export.product import ProductPaths
from export.releases.publish import publish_category
from export.serving import native_pictures
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from export.serving.probes import make_probes
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from train.data.category import CategoryData

pytestmark = pytest.mark.triton
pytest_plugins = ["tests.tiny_native"]
CROP = (32, 64, 128, 160)  # left, upper, right, lower
ODD = (0, 0, 210, 150)
STRIP_BYTES = 1  # every part runs in strips as thin as its margin allows


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def repository(work: Path, native_product: ProductPaths) -> Path:
    repository = work / "model_repository"
    copy_backends(repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_pictures, "STRIP_BYTES", STRIP_BYTES)
        patch.setenv(native_pictures.MAX_MEGAPIXELS, "0.2")
        said = publish_category(
            native_product.build, repository=repository, platform=Platform(), read_graph=read_onnx_file
        )
    assert "; batches and requests hold one picture, at its own size of up to 0.2 megapixels" in said
    return repository


@pytest.fixture(scope="module")
def server(work: Path, repository: Path) -> Iterator[TritonServer]:
    with running_server(
        repository=repository,
        log=work / "tritonserver.log",
        triton_env=ROOT / ".triton",
        protection=Protection(client_shm=True),
    ) as running:
        yield running


@pytest.fixture
def judge(server: TritonServer) -> Iterator[JudgeClient]:
    with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(native_data: CategoryData) -> list[Image.Image]:
    """A whole picture, a crop of it and one of odd sides."""
    whole = load_image(next(image.path for image in native_data.test if image.defect != "good"))
    return [whole, whole.crop(CROP), whole.crop(ODD)]


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def same(ours: Verdict, theirs: Verdict) -> None:
    assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, rtol=0, atol=1e-4)
    assert ours.original_size == theirs.original_size


def test_one_release_judges_all_sizes_files_as_pixels(
    server: TritonServer, judge: JudgeClient, pictures: list[Image.Image]
) -> None:
    assert (judge.image_size, judge.max_batch) == (-1, 1)
    with JudgeClient(
        server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S, shared_memory=True
    ) as in_memory:
        for picture in pictures:
            verdict = judge.judge(picture)
            assert verdict.anomaly_map.shape == verdict.mask.shape == picture.size[::-1]
            assert verdict.original_size == picture.size
            same(judge.judge(as_png(picture)), verdict)
            same(in_memory.judge(picture), verdict)
            same(in_memory.judge(as_png(picture)), verdict)
            assert judge.score(as_png(picture)).score == pytest.approx(verdict.score, abs=1e-4)


def test_a_planted_defect_is_where_it_was_planted(judge: JudgeClient, pictures: list[Image.Image]) -> None:
    good = np.asarray(pictures[2])
    planted = good.copy()
    planted[90:114, 150:174] = np.random.default_rng(0).integers(0, 256, (24, 24, 3))
    rise = judge.judge(planted).anomaly_map - judge.judge(good).anomaly_map
    row, column = np.unravel_index(rise.argmax(), rise.shape)
    assert 82 <= row < 122
    assert 142 <= column < 182


def test_requests_of_different_sizes_at_once(judge: JudgeClient, pictures: list[Image.Image]) -> None:
    expected = [judge.judge(picture) for picture in pictures]
    many = [index % 3 for index in range(24)]
    for index, verdict in zip(
        many, judge.judge_many([pictures[index] for index in many], in_flight=6), strict=True
    ):
        same(verdict, expected[index])
    with ThreadPoolExecutor(4) as pool:
        files = [as_png(picture) for picture in pictures]
        for index, verdict in zip(many, pool.map(judge.judge, [files[i] for i in many]), strict=True):
            same(verdict, expected[index])


def test_what_is_too_large_is_told_in_a_sentence(judge: JudgeClient) -> None:
    large = Image.new("RGB", (640, 480))
    expected = r"is too large: 640 x 480 are 0\.3 megapixels, and images are judged at their own size up to 0\.2; cut"
    for sent in (large, as_png(large)):
        with pytest.raises(RefusedImage, match=expected):
            judge.judge(sent)
    with pytest.raises(ServerError, match="own size, and those of different sizes cannot be put together"):
        next(iter(judge.judge_many([large], batch=2)))


def test_the_gate_compares_whole_pictures(server: TritonServer, native_product: ProductPaths) -> None:
    result = verify_category(native_product, url=server.grpc_url)
    assert {agreement.judge for agreement in result.agreements} == {
        "ONNX fp32",
        "live fp32",
        "live fp32, encoded",
    }
    # Of scores in the thousands: the networks have random weights.
    assert max(agreement.max_score_difference for agreement in result.agreements) < 1e-2


def test_an_explanation_shows_the_picture_alone(judge: JudgeClient, pictures: list[Image.Image]) -> None:
    explanation = explain(judge, pictures[2], name="a")
    assert explanation.verdict.anomaly_map.shape == (150, 210)
    assert [stage.distances.shape for stage in explanation.stages] == [(38, 53), (19, 27), (10, 14)]


def test_probes_are_judged_alike(judge: JudgeClient, native_product: ProductPaths) -> None:
    for png, score in make_probes(native_product.build, read_manifest(native_product.build)):
        assert judge.judge(png).score == pytest.approx(score, rel=1e-5)

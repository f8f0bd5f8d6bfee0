"""Parts that lie anywhere: training, the gate, the real server, and the verdict in the picture that was sent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import JudgeClient, load_image
from client.core.errors import RefusedImage
from client.explaining.asking import explain
from deploy.server import TritonServer, running_server
from export.builds.up_to_date import build_category
from export.errors import ExportError
from export.manifest import read_manifest
from export.parity.gate import verify_category
from export.product import ProductPaths
from export.releases.publish import Circumstances
from export.releases.store import Store
from export.releases.verbs.bundle import bundle_release, import_bundle
from export.releases.verbs.check import check
from export.releases.verbs.server import connected
from export.serving.probes import make_probes
from model_repository.alignment.reference_picture import FILE
from tests.conftest import CATEGORY, FitTiny
from tests.moved_parts import move_category
from tests.products import ROOT, TIMEOUT_S, publish_tiny
from train.checkpoint.tensors import load_checkpoint
from train.data.category import CategoryData
from train.evaluation.evaluate import Evaluation, evaluate
from train.support.devices import Runtime

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alignment")


@pytest.fixture(scope="module")
def moved(work: Path, tiny_data: CategoryData) -> CategoryData:
    return move_category(tiny_data, work / "data" / CATEGORY)


@pytest.fixture(scope="module")
def product(work: Path, moved: CategoryData, fit_tiny: FitTiny) -> ProductPaths:
    # Of another seed than the usual one, by which two scores differ by less than half precision does.
    product = publish_tiny(
        moved,
        work,
        fit_tiny,
        circumstances=Circumstances(probes=make_probes),
        align="on",
        foreground="threshold",
        seed=1,
    )
    build_category(product, "fp16")
    return product


@pytest.fixture(scope="module")
def evaluated(product: ProductPaths, moved: CategoryData) -> Evaluation:
    evaluation = evaluate(load_checkpoint(product.checkpoint), moved, runtime=Runtime("cpu", strict=True))
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


def test_files_and_pixels_are_judged_as_in_training(
    judge: JudgeClient, moved: CategoryData, evaluated: Evaluation
) -> None:
    expected = evaluated.judged.verdict
    for index, image in enumerate(moved.test):
        picture = load_image(image.path)
        for sent in (image.path.read_bytes(), picture):
            verdict = judge.judge(sent)
            assert verdict.score == pytest.approx(float(expected.pred_score[index, 0]), abs=1e-4)
            assert verdict.anomalous == bool(expected.pred_label[index, 0])
            np.testing.assert_allclose(verdict.anomaly_map, expected.anomaly_map[index], rtol=0, atol=1e-3)
            assert (verdict.mask != expected.pred_mask[index]).mean() < 0.01
        assert judge.score(picture).score == pytest.approx(verdict.score, abs=1e-6)


def test_the_gate_judges_the_files_alike(server: TritonServer, product: ProductPaths) -> None:
    result = verify_category(product, url=server.grpc_url)
    assert {agreement.judge for agreement in result.agreements} >= {
        "live fp32",
        "live fp32, encoded",
        "ONNX fp16",
    }
    assert result.accepted
    of_fp32 = [agreement for agreement in result.agreements if agreement.precision == "fp32"]
    assert max(agreement.max_score_difference for agreement in of_fp32) < 1e-4


def test_an_image_that_cannot_be_aligned_is_refused_alone(judge: JudgeClient, moved: CategoryData) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(
        RefusedImage, match=r"image 1 of 1 cannot be aligned: its correlation .* is -?0\.\d+ at best"
    ):
        judge.judge(noise)
    good = load_image(moved.test[0].path)
    assert judge.judge(good).score > 0


def test_the_probes_of_a_release_can_be_aligned(
    server: TritonServer, work: Path, product: ProductPaths
) -> None:
    repository = work / "model_repository"
    record = Store(repository).read(CATEGORY, 1)
    assert len(record.probes) == 2
    with connected(server.grpc_url) as running:
        running.probe(record, repository)


def test_the_reference_is_a_file_of_the_release_and_of_its_bundle(work: Path, product: ProductPaths) -> None:
    repository, line = work / "model_repository", work / "line"
    record = Store(repository).read(CATEGORY, 1)
    step = record.steps["alignment"]
    assert (step.model, step.version) == (f"{CATEGORY}_alignment_64", 1)
    assert step.files[FILE] == read_manifest(product.build).files[FILE]
    bundle_release(repository, CATEGORY, 1, work / "pill.bundle")
    line.mkdir()
    import_bundle(line, work / "pill.bundle")
    assert Store(line).read(CATEGORY, 1).steps["alignment"].files == step.files
    assert check(line).faults == []
    path = line / step.model / "1" / FILE
    path.write_text(path.read_text().replace("astmfr", "astmfR"))
    (fault,) = check(line).faults
    assert f"{path} is not the file of release 1 of {CATEGORY!r}: it was changed" in fault


def test_a_build_whose_reference_was_changed_is_not_published(work: Path, product: ProductPaths) -> None:
    build = shutil.copytree(product.build, work / "changed" / CATEGORY)
    (build / FILE).write_text((build / FILE).read_text().replace("0.", "0.1", 1))
    with pytest.raises(ExportError, match=r"alignment\.json is not the file that was verified; export again"):
        read_manifest(build)


def test_an_explanation_shows_the_picture_as_it_was_sent(judge: JudgeClient, moved: CategoryData) -> None:
    picture = load_image(moved.test[0].path)
    explanation = explain(judge, picture, name="a")
    assert sum(stage.contribution for stage in explanation.stages) == pytest.approx(
        judge.score(picture).score, rel=1e-3
    )
    assert [stage.distances.shape for stage in explanation.stages] == [(16, 16), (8, 8), (4, 4)]

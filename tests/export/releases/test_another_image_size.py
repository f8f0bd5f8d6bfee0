"""A category that is published with images of another size, or over another teacher, is served, and so is a way back.

One configuration gives the shapes of all versions of a model, and all of them are warmed up with these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client import JudgeClient
from deploy.model_control import ModelControl
from deploy.server import running_server
from export.builds.up_to_date import build_category
from export.manifest import read_manifest
from export.product import ProductPaths
from export.releases.repository import Repository
from tests.conftest import CATEGORY, FitTiny
from tests.export.releases.conftest import contents, loaded, publish
from tests.products import ROOT, TIMEOUT_S
from train.data.category import CategoryData

STUDENT = f"{CATEGORY}_student"
SIZE = 32


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory, tiny_data: CategoryData, fit_tiny: FitTiny) -> Path:
    """A build of the same category for images of 32 px."""
    work = tmp_path_factory.mktemp("smaller")
    fit_tiny(tiny_data, work / "runs" / CATEGORY, image_size=SIZE, smoothing_sigma=2.0, pool_size=3)
    build_category(ProductPaths(CATEGORY, work / "runs", work / "build"))
    return work / "build" / CATEGORY


def test_a_student_of_other_shapes_is_a_model_of_its_own(repository: Path, pill: Path, smaller: Path) -> None:
    """It can be loaded beside the one that is live, and a way back is open."""
    publish(pill, repository)
    first = contents(repository / STUDENT)
    assert f"{STUDENT}_{SIZE} 1" in publish(smaller, repository)
    assert loaded(repository, f"{STUDENT}_{SIZE}") == [1]
    assert contents(repository / STUDENT) == first
    assert f"{STUDENT} 1" in publish(pill, repository)
    assert Repository(repository).versions(STUDENT) == [1]


def test_a_teacher_of_other_channels_is_another_shape_too(repository: Path, pill: Path) -> None:
    """As after training with another --teacher; what is published stands for that release."""
    publish(pill, repository)
    before = Repository(repository).read_manifest(STUDENT, 1)
    other = before.model_copy(update={"teacher_channels": (1, 2, 3), "weights_id": 1})
    other.write(repository / STUDENT / "1")
    assert f"{STUDENT}_64 1" in publish(pill, repository)


@pytest.mark.triton
def test_the_server_serves_each_size_as_it_is_published(
    repository: Path, pill: Path, smaller: Path, tmp_path: Path
) -> None:
    publish(pill, repository)
    with running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server:
        control = ModelControl(server.http_url)
        for build in (smaller, pill):
            publish(build, repository)
            control.load(CATEGORY)
            with JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge:
                size = read_manifest(build).config.image_size
                assert judge.image_size == size
                verdict = judge.judge(np.full((size, size, 3), 128, np.uint8))
            assert verdict.release_id == read_manifest(build).release_id
            assert verdict.anomaly_map.shape == (size, size)
    publish(smaller, repository)
    with (
        running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server,
        JudgeClient(server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S) as judge,
    ):
        verdict = judge.judge(np.full((SIZE, SIZE, 3), 128, np.uint8))
        assert verdict.release_id == read_manifest(smaller).release_id

"""The same weights under two categories, and with another background removal, each with thresholds of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client import JudgeClient
from deploy.server import TritonServer, running_server
from export.builds.up_to_date import build_category
from export.product import ProductPaths
from export.releases.store import Store
from export.releases.verbs.check import check
from export.releases.verbs.promote import promote, rollback
from export.releases.verbs.retune import Retuning, retune
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends, reference_verdict
from tests.test_releases_serving import publish, require_each_of_one_release, under_load
from train.checkpoint.tensors import Checkpoint, load_checkpoint, save_checkpoint
from train.data.category import CategoryData
from train.data.pictures.loading import load_images

pytestmark = pytest.mark.triton


def export(checkpoint: Checkpoint, runs: Path, work: Path, *, category: str, foreground: str) -> ProductPaths:
    """A build of the same networks: of another category, or with another background removal."""
    other = replace(
        checkpoint,
        config=checkpoint.config.model_copy(update={"foreground": foreground}),
        provenance=checkpoint.provenance.model_copy(update={"category": category}),
        calibration=replace(checkpoint.calibration, foreground=foreground),
    )
    shutil.copytree(runs / CATEGORY, work / "runs" / category)
    product = ProductPaths(category, work / "runs", work / "build")
    save_checkpoint(product.checkpoint, other)
    build_category(product)
    return product


def judge(server: TritonServer, category: str, image: np.ndarray) -> tuple[int, float, float]:
    with JudgeClient(server.grpc_url, category=category, timeout_s=TIMEOUT_S) as client:
        verdict = client.judge(image)
    return verdict.release_id, verdict.threshold, verdict.score


def test_the_same_weights_serve_two_categories_and_two_foregrounds(
    tiny_runs: Path, tiny_checkpoint: Path, tiny_build: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    products = [
        ProductPaths(CATEGORY, tiny_runs, tiny_build),
        export(checkpoint, tiny_runs, tmp_path / "nut", category="nut", foreground="none"),
        export(checkpoint, tiny_runs, tmp_path / "masked", category=CATEGORY, foreground="threshold"),
    ]
    repository = copy_backends(tmp_path / "models")
    for number, product in enumerate(products):
        publish(product.build, repository, live=number < 2)
    retune(repository, "nut", Retuning(threshold=0.125), url=None)
    pixels = load_images([image.path for image in tiny_data.test[:4]], image_size=64, strict=True).pixels
    checkpoints = [load_checkpoint(product.checkpoint) for product in products]
    maps = {each.weights_id: reference_verdict(each, pixels).anomaly_map for each in checkpoints}
    assert len(maps) == 3
    pill, nut = Store(repository).read(CATEGORY, 1), Store(repository).read("nut", 2)
    with running_server(repository=repository, log=tmp_path / "log", triton_env=ROOT / ".triton") as server:
        before = judge(server, CATEGORY, pixels[0])
        assert before[:2] == (pill.release_id, np.float32(pill.calibration.image_threshold))
        assert judge(server, "nut", pixels[0]) == (nut.release_id, 0.125, before[2])
        with under_load(server, pixels) as answers:  # another foreground, and back: no request is refused
            promote(repository, CATEGORY, 2, url=server.grpc_url)
            rollback(repository, CATEGORY, url=server.grpc_url)
            promote(repository, CATEGORY, 2, url=server.grpc_url)
        assert len(require_each_of_one_release(answers, repository, maps)) == 2
        assert judge(server, "nut", pixels[0])[:2] == (nut.release_id, 0.125)
    assert check(repository).faults == []

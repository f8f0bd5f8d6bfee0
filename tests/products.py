"""Small products for tests against a real server: trained, exported, published, and what PyTorch says of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from client import JudgeClient
from deploy.ports import Ports, claim_ports
from deploy.server import TritonServer
from export.builds.up_to_date import build_category
from export.manifest import read_manifest
from export.product import ProductPaths
from export.records import FileRecord
from export.releases.publish import AT_ONCE, Circumstances, publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from model_repository.distance_fusion.map_fusion import (
    Calibration,
    Verdict,
    fuse_distances,
    fusion_code_id,
    judge,
    release_id_of,
    remove_background,
)
from tests.conftest import FitTiny, leave_out_pictures
from train.calibration.foreground import find_foreground, load_foreground
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData, read_category
from train.data.pictures.loading import load_images
from train.data.sources.synthetic.dataset import render_category
from train.method.judging import compute_distances
from train.runs import evaluate_category, fit_category
from train.support.devices import Runtime

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 60  # of a call; the machine may be busy
CPU = torch.device("cpu")
MAX_BATCH_SIZE = 4
UNCALIBRATED = "uncalibrated"  # a published product whose calibration was lost
UNCALIBRATED_WEIGHTS = 4711


@dataclass(frozen=True)
class Product:
    """A published category, and what PyTorch and numpy say of its test images.

    Attributes:
        pixels: [N, S, S, 3] uint8, the images of `data.test` in their order.
        expected: the verdict of each of them.
    """

    name: str
    data: CategoryData
    checkpoint: Checkpoint
    metrics: dict[str, Any]
    build: Path
    repository: Path
    pixels: NDArray[np.uint8]
    expected: Verdict

    def connect(self, server: TritonServer) -> JudgeClient:
        return JudgeClient(server.grpc_url, category=self.name, timeout_s=TIMEOUT_S)


def make_product(
    category: str,
    preset: str,
    overrides: Mapping[str, Any],
    repository: Path,
    *,
    n_train: int,
    n_test_good: int,
    weights_dir: Path | None = None,
) -> Product:
    """All stages from synthetic images to a published release, and the reference verdicts."""
    work = repository.parent
    train_and_build(
        category, preset, overrides, work, n_train=n_train, n_test_good=n_test_good, weights_dir=weights_dir
    )
    return publish_product(category, work, repository, weights_dir=weights_dir)


def train_and_build(
    category: str,
    preset: str,
    overrides: Mapping[str, Any],
    work: Path,
    *,
    n_train: int,
    n_test_good: int,
    weights_dir: Path | None = None,
) -> None:
    """Synthetic images, a run and a build, in the folders data, runs and build of `work`."""
    root = render_category(
        work / "data",
        category=category,
        image_size=160,
        n_train=n_train,
        n_test_good=n_test_good,
        n_per_defect=1,
    )
    defects = sorted(folder for folder in (root / "test").iterdir() if folder.name != "good")
    for spare in defects[n_test_good:]:
        shutil.rmtree(spare)  # as many defective images as good ones will do
    data = read_category(root, dataset="synthetic", category=category)
    run_dir = work / "runs" / category
    runtime = Runtime("cpu", weights_dir, strict=True)
    fit_category(data, preset=preset, overrides=overrides, run_dir=run_dir, runtime=runtime)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        evaluate_category(data, run_dir=run_dir, runtime=runtime)
    build_category(ProductPaths(category, work / "runs", work / "build", weights_dir=weights_dir))


def publish_product(
    category: str, work: Path, repository: Path, *, weights_dir: Path | None = None
) -> Product:
    """Publish what `train_and_build` left in `work`; with the reference verdicts."""
    data = read_category(work / "data" / category, dataset="synthetic", category=category)
    run_dir = work / "runs" / category
    publish_category(
        work / "build" / category,
        repository=repository,
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
    )
    checkpoint = load_checkpoint(run_dir / "checkpoint.safetensors")
    pixels = load_images(
        [image.path for image in data.test], image_size=checkpoint.config.image_size, strict=True
    ).pixels
    return Product(
        name=category,
        data=data,
        checkpoint=checkpoint,
        metrics=json.loads((run_dir / "metrics.json").read_text()),
        build=work / "build" / category,
        repository=repository,
        pixels=pixels,
        expected=reference_verdict(checkpoint, pixels, weights_dir=weights_dir),
    )


def publish_tiny(
    data: CategoryData,
    work: Path,
    fit_tiny: FitTiny,
    *,
    circumstances: Circumstances = AT_ONCE,
    **overrides: Any,
) -> ProductPaths:
    """Tiny networks trained on the images, built, and published into `work`/model_repository, which is made."""
    product = ProductPaths(data.category, work / "runs", work / "build")
    fit_tiny(data, product.checkpoint.parent, **overrides)
    build_category(product)
    publish_category(
        product.build,
        repository=copy_backends(work / "model_repository"),
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
        circumstances=circumstances,
    )
    return product


def reference_verdict(
    checkpoint: Checkpoint, pixels: NDArray[np.uint8], *, weights_dir: Path | None = None
) -> Verdict:
    """What PyTorch's distances and masks come to under the checkpoint's own calibration."""
    distances = compute_distances(
        checkpoint.teacher,
        checkpoint.student,
        pixels,
        scale=checkpoint.config.distance_scale,
        device=CPU,
        what="Reference",
    )
    finder = load_foreground(checkpoint.config.foreground, weights_dir=weights_dir)
    anomaly_map = remove_background(
        fuse_distances(distances, checkpoint.calibration.fusion),
        find_foreground(pixels, finder, device=CPU),
        checkpoint.calibration.regions,
    )
    return judge(anomaly_map, checkpoint.calibration)


def copy_backends(repository: Path) -> Path:
    """A model repository with the committed backends, and nothing of what is published in the project's own."""
    # Versions after the first and configurations are what a checkout that serves has published.
    leave_out = shutil.ignore_patterns("__pycache__", "calibrations", "config.pbtxt", "[2-9]*", "1?*")
    for model in ("alignment", "distance_fusion", "foreground", "image_decoder"):
        shutil.copytree(ROOT / "model_repository" / model, repository / model, ignore=leave_out)
    return repository


def calibration_file(repository: Path, weights_id: int) -> Path:
    """Where the live calibration of a student's weights lies."""
    return repository / ".releases" / "calibrations" / f"{weights_id}.json"


def copy_as(build: Path, folder: Path, *, weights_id: int | None = None) -> Path:
    """A build as that of another category, named as the folder: files and weights of its own, the teacher the same.

    The student's weights are the same too; each category's stand in a file of its own and are loaded from it.

    Returns:
        The folder.
    """
    category = folder.name
    shutil.copytree(build, folder)
    manifest = read_manifest(build)
    digest = hashlib.sha256(f"{manifest.weights_id} {category}".encode()).digest()
    weights = weights_id or int.from_bytes(digest[:8], "big") >> 1
    change_weights(folder / "student.onnx", manifest.weights_id, weights)
    calibration = replace(Calibration.load(build / "calibration.json"), weights_id=weights, category=category)
    release = release_id_of(calibration, fusion_code_id())
    (folder / "calibration.json").write_text(replace(calibration, release_id=release).to_json())
    files = {name: FileRecord.of(folder / name) for name in manifest.files}
    update = {"category": category, "release_id": release, "weights_id": weights, "files": files}
    (folder / "manifest.json").write_text(manifest.model_copy(update=update).model_dump_json())
    return folder


def publish_uncalibrated(product: Product) -> None:
    """Publish a product's graphs as other weights, and lose the calibration of these."""
    folder = product.repository.parent / "build" / UNCALIBRATED
    build = copy_as(product.build, folder, weights_id=UNCALIBRATED_WEIGHTS)
    publish_category(
        build,
        repository=product.repository,
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
    )
    calibration_file(product.repository, UNCALIBRATED_WEIGHTS).unlink()


def change_weights(graph: Path, old: int, new: int) -> None:
    """Put another id of the weights into a student's graph."""
    model = onnx.load(graph)
    (constant,) = (
        tensor for tensor in model.graph.initializer if (numpy_helper.to_array(tensor) == old).all()
    )
    constant.CopyFrom(numpy_helper.from_array(np.array([[new]], np.int64), constant.name))
    onnx.save(model, graph)


def unused_url() -> str:
    """Where no server is."""
    return f"127.0.0.1:{claim_ports('127.0.0.1', Ports()).grpc}"

"""The model that removes the background: of SAM a graph that is verified and shared, of the threshold method a copy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from tritonclient.grpc import model_config_pb2 as pb

from export.builds.up_to_date import build_category
from export.errors import PublishError, VerificationError
from export.graphs.chain import open_session
from export.graphs.structure import verify_foreground
from export.manifest import FileRecord, read_manifest
from export.product import ProductPaths
from export.releases.publish import publish_category
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.backend_rules import lone_instance
from export.serving.onnx_files import read_onnx_file
from model_repository.distance_fusion.map_fusion import Calibration
from tests.conftest import CATEGORY, TINY_OPTIONS
from tests.products import copy_backends
from tests.tiny_sam import save_tiny_sam
from train.calibration.sam import load_sam
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.errors import WeightsError
from train.runs import fit_category
from train.support.devices import Runtime

SIZE = 96  # larger than the tiny SAM's pictures: its graph resizes


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_tiny_sam(folder)
    return folder


@pytest.fixture(scope="module")
def sam_runs(tiny_data: CategoryData, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was calibrated with the tiny SAM."""
    runs = tmp_path_factory.mktemp("runs")
    fit_category(
        tiny_data,
        preset="edge",
        overrides={**TINY_OPTIONS, "foreground": "sam", "steps": 1, "image_size": SIZE},
        run_dir=runs / CATEGORY,
        runtime=Runtime("cpu", weights_dir),
        force=True,
    )
    return runs


@pytest.fixture(scope="module")
def sam_build(sam_runs: Path, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    builds = tmp_path_factory.mktemp("build")
    build(sam_runs, builds, weights_dir)
    return builds / CATEGORY


def build(runs: Path, builds: Path, weights_dir: Path | None) -> None:
    build_category(ProductPaths(CATEGORY, runs, builds, weights_dir=weights_dir))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The committed backends alone."""
    return copy_backends(tmp_path / "models")


def publish(folder: Path, repository: Path, platform: str = "python", **options: Any) -> str:
    return publish_category(
        folder,
        repository=repository,
        platform=Platform(platform, max_batch_size=4),
        read_graph=read_onnx_file,
        **options,
    )


def steps(repository: Path, ensemble: str = CATEGORY) -> dict[str, int]:
    config = Repository(repository).read_config(ensemble)
    assert config is not None
    return {step.model_name: step.model_version for step in config.ensemble_scheduling.step}


def test_sams_graph_is_part_of_the_build(sam_build: Path, sam_runs: Path, weights_dir: Path) -> None:
    manifest = read_manifest(sam_build)
    assert set(manifest.files) == {"calibration.json", "foreground.onnx", "student.onnx", "teacher.onnx"}
    assert manifest.foreground_id == load_sam(weights_dir).id
    assert manifest.foreground_difference is not None
    assert manifest.foreground_difference <= 1e-3


def test_masks_of_the_graph_are_pytorchs(sam_build: Path, weights_dir: Path, tiny_data: CategoryData) -> None:
    pixels = load_images([image.path for image in tiny_data.test[:5]], image_size=SIZE, strict=True).pixels
    (masks,) = open_session(sam_build / "foreground.onnx").run(None, {"image": pixels})
    with torch.inference_mode():
        expected = load_sam(weights_dir)(torch.from_numpy(pixels)).numpy()
    assert (masks.dtype, masks.shape) == (np.bool_, (5, SIZE, SIZE))
    assert (masks != expected).mean() < 1e-3
    assert min((expected[0] != other).mean() for other in expected[1:]) > 1e-2  # or nothing is compared


def test_another_graph_than_the_checkpoints_sam_is_refused(
    sam_build: Path, weights_dir: Path, tiny_data: CategoryData, tmp_path: Path
) -> None:
    pixels = load_images([image.path for image in tiny_data.test[:2]], image_size=SIZE, strict=True).pixels
    save_tiny_sam(tmp_path, seed=0)
    with pytest.raises(VerificationError, match=r"differs from PyTorch in \d+\.\d+% of the masks' pixels"):
        verify_foreground(load_sam(tmp_path), sam_build / "foreground.onnx", pixels)

    planted = Path(shutil.copy(sam_build / "foreground.onnx", tmp_path))
    model = onnx.load(planted)
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(0, helper.make_node("RandomUniformLike", [node.input[1]], ["planted"]))
    onnx.save(model, planted)
    with pytest.raises(VerificationError, match=r"foreground\.onnx holds random nodes"):
        verify_foreground(load_sam(weights_dir), planted, pixels)


@pytest.mark.parametrize("platform", ["python", "onnxruntime"])
def test_sam_has_one_instance_without_a_bound(platform: str, sam_build: Path, repository: Path) -> None:
    """One instance behind a bounded queue would now and then wait for half a second."""
    publish(sam_build, repository, platform)
    config = Repository(repository).read_config(f"foreground_sam_{SIZE}")
    assert config is not None
    assert lone_instance(config) is None
    assert sum(group.count for group in config.instance_group) == 1
    assert config.dynamic_batching.default_queue_policy == pb.ModelQueuePolicy()


def test_export_needs_the_sam_of_the_calibration(sam_runs: Path, tmp_path: Path) -> None:
    save_tiny_sam(tmp_path / "other", seed=1)
    with pytest.raises(WeightsError, match=r"is not the one that category 'pill' was calibrated with"):
        build(sam_runs, tmp_path / "build", tmp_path / "other")
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("platform", ["python", "onnxruntime"])
def test_sam_is_published_as_a_model_of_its_own(sam_build: Path, repository: Path, platform: str) -> None:
    message = publish(sam_build, repository, platform)
    assert "masked by foreground_sam_96 1" in message
    masked = {"foreground_sam_96": 1, "teacher_test_resnet_96": 1, "pill_student": 1, "distance_fusion": 2}
    assert steps(repository) == masked
    assert steps(repository, "pill_encoded") == {"image_decoder_96": 1, **masked}
    version = repository / "foreground_sam_96" / "1"
    assert (version / "model.onnx").read_bytes() == (sam_build / "foreground.onnx").read_bytes()
    config = Repository(repository).read_config("foreground_sam_96")
    assert config is not None
    assert config.backend == platform
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("image", [SIZE, SIZE, 3])]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("foreground", [SIZE, SIZE])]
    again = publish(sam_build, repository, platform)
    assert again.startswith("Up to date")
    assert "one instance" not in message + again  # SAM has one on purpose: it takes gigabytes


def test_releases_share_one_sam(sam_build: Path, repository: Path, tmp_path: Path) -> None:
    publish(sam_build, repository)
    publish(changed_build(sam_build, tmp_path / "newer", weights_id=4711), repository)
    assert steps(repository)["pill_student"] == 2
    assert Repository(repository).versions("foreground_sam_96") == [1]
    publish(changed_build(sam_build, tmp_path / "other_sam", weights_id=4712, foreground_id=1), repository)
    assert steps(repository)["foreground_sam_96"] == 2


def changed_build(folder: Path, copy: Path, **changes: object) -> Path:
    """The same graphs under another manifest, and a calibration of its weights."""
    shutil.copytree(folder, copy)
    manifest = read_manifest(folder).model_copy(update=changes)
    path = copy / "calibration.json"
    path.write_text(replace(Calibration.load(path), weights_id=manifest.weights_id).to_json())
    files = {**manifest.files, path.name: FileRecord.of(path)}
    manifest = manifest.model_copy(update={"files": files})
    (copy / "manifest.json").write_text(manifest.model_dump_json())
    return copy


def test_the_threshold_method_is_the_committed_backend_under_a_sized_name(
    tiny_build: Path, repository: Path, tmp_path: Path
) -> None:
    config = read_manifest(tiny_build / CATEGORY).config.model_copy(update={"foreground": "threshold"})
    folder = changed_build(tiny_build / CATEGORY, tmp_path / "masked", config=config)
    assert "masked by foreground_64 1" in publish(folder, repository)
    assert steps(repository)["foreground_64"] == 1
    for part in ("1/model.py", "foreground_mask.py"):
        published = repository / "foreground_64" / "1" / Path(part).name
        assert published.read_bytes() == (repository / "foreground" / part).read_bytes()
    assert publish(folder, repository).startswith("Up to date")

    shutil.rmtree(repository / "foreground")
    with pytest.raises(PublishError, match=r"holds no foreground backend; expected the project's"):
        publish(folder, repository)


def test_without_background_removal_no_mask_is_wired(tiny_build: Path, repository: Path) -> None:
    manifest = read_manifest(tiny_build / CATEGORY)
    assert (manifest.foreground_id, manifest.foreground_difference) == (0, None)
    assert "masked" not in publish(tiny_build / CATEGORY, repository)
    assert not any(model.startswith("foreground") for model in steps(repository))
    assert not (repository / "foreground_64").exists()

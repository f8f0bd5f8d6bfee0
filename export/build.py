"""From a checkpoint to build/<category>/: two verified graphs, the calibration and a manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.errors import ExportError
from export.graphs import OPSET, GraphFiles, write_foreground_graph, write_graphs
from export.manifest import FileRecord, Manifest, read_manifest
from export.verification import PARITY_BATCHES, verify_foreground, verify_graphs
from train.checkpoint import Checkpoint, load_checkpoint, read_release_id, release_id
from train.data import load_images, read_category
from train.errors import DataError
from train.files import sha256_of, write_text
from train.foreground import ForegroundFinder, load_foreground
from train.progress import console

LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "torch")
FORMAT = "astmfr-build-1"


@dataclass(frozen=True)
class BuildResult:
    """What came of a build; `built` is False when it was up to date."""

    manifest: Manifest
    built: bool


def build_category(
    category: str,
    *,
    runs_dir: Path,
    build_dir: Path,
    images_dir: Path | None,
    force: bool,
    weights_dir: Path | None = None,
) -> BuildResult:
    """Write and verify a category's graphs, unless those of its checkpoint are there already.

    Args:
        category: the product.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: takes <category>/; replaced as a whole, or left as it was when anything fails.
        images_dir: real images for the parity check; None means those of the training data.
        force: build even when up to date.
        weights_dir: where SAM's weights may lie, for a checkpoint that was calibrated with it.

    Raises:
        UserError: no checkpoint, no images to check with, or a graph that is not accepted.
    """
    checkpoint_path = runs_dir / category / "checkpoint.safetensors"
    target = build_dir / category
    if not force:
        manifest = _up_to_date_manifest(target, checkpoint_path)
        if manifest is not None:
            return BuildResult(manifest, built=False)
    checkpoint = load_checkpoint(checkpoint_path)
    if checkpoint.provenance.category != category:
        raise ExportError(
            f"{checkpoint_path} was trained for category {checkpoint.provenance.category!r}; expected {category!r}."
        )
    foreground = load_foreground(checkpoint.config.foreground, weights_dir=weights_dir)
    foreground.require_calibrated_with(checkpoint.calibration)
    images, images_from = _parity_images(checkpoint, images_dir)
    build_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=build_dir, prefix=f".{category}."))
    try:
        staging.chmod(0o755)
        manifest = _build(
            checkpoint,
            checkpoint_path,
            staging,
            foreground=foreground,
            images=images,
            images_from=images_from,
        )
        if target.exists():
            target.rename(staging / "replaced")
        (staging / "new").rename(target)
    finally:
        shutil.rmtree(staging)
    return BuildResult(manifest, built=True)


def teacher_id(teacher: Mapping[str, Tensor], image_size: int) -> int:
    """Which teacher this is: its tensors and the image size; categories that agree share one model."""
    digest = hashlib.sha256(f"{release_id(teacher)} {image_size}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _build(
    checkpoint: Checkpoint,
    checkpoint_path: Path,
    staging: Path,
    *,
    foreground: ForegroundFinder,
    images: NDArray[np.uint8],
    images_from: str,
) -> Manifest:
    """Write everything to staging/new and verify it there."""
    folder = staging / "new"
    folder.mkdir()
    files = GraphFiles(teacher=folder / "teacher.onnx", student=folder / "student.onnx")
    with console.status("Writing ONNX graphs"):
        write_graphs(checkpoint, files)
    with console.status("Verifying them against the checkpoint"):
        parity = verify_graphs(checkpoint, files, images)
    written = [files.teacher, files.student]
    difference = None
    if foreground.sam is not None:
        written.append(folder / "foreground.onnx")
        with console.status("Writing and verifying SAM's graph"):
            write_foreground_graph(foreground.sam, written[-1], image_size=checkpoint.config.image_size)
            difference = verify_foreground(foreground.sam, written[-1], images)
    calibration_path = folder / "calibration.json"
    write_text(calibration_path, checkpoint.calibration.to_json())
    first, second, third = checkpoint.teacher.channels
    manifest = Manifest(
        format=FORMAT,
        category=checkpoint.provenance.category,
        release_id=checkpoint.release_id,
        teacher_id=teacher_id(checkpoint.teacher.state_dict(), checkpoint.config.image_size),
        precision="fp32",
        opset=OPSET,
        teacher_channels=(first, second, third),
        checkpoint_sha256=sha256_of(checkpoint_path),
        files={
            path.name: FileRecord(sha256=sha256_of(path), n_bytes=path.stat().st_size)
            for path in (*written, calibration_path)
        },
        parity=parity,
        parity_images=images_from,
        foreground_id=foreground.id,
        foreground_difference=difference,
        config=checkpoint.config,
        provenance=checkpoint.provenance,
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
    write_text(folder / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _up_to_date_manifest(target: Path, checkpoint_path: Path) -> Manifest | None:
    try:
        manifest = read_manifest(target)
    except ExportError:
        return None
    versions: dict[str, Any] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    same = manifest.release_id == read_release_id(checkpoint_path) and manifest.versions == versions
    return manifest if same and manifest.format == FORMAT else None


def _parity_images(checkpoint: Checkpoint, images_dir: Path | None) -> tuple[NDArray[np.uint8], str]:
    """Eight real images, spread over the test set where there is one, and where they came from."""
    root = images_dir or Path(checkpoint.provenance.data_root)
    try:
        data = read_category(
            root, dataset=checkpoint.provenance.dataset, category=checkpoint.provenance.category
        )
    except DataError:
        raise ExportError(
            f"{root} holds no images to compare the graphs with PyTorch on; give a folder of the product's "
            "images with --images."
        ) from None
    candidates = [image.path for image in data.test] or list(data.train_good)
    needed = max(PARITY_BATCHES)
    spread = np.linspace(0, len(candidates) - 1, num=min(needed, len(candidates))).astype(int)
    loaded = load_images(
        [candidates[index] for index in spread],
        image_size=checkpoint.config.image_size,
        strict=False,
        what="images for verification",
    )
    # A small set is gone through again.
    return np.resize(loaded.pixels, (needed, *loaded.pixels.shape[1:])), str(root)

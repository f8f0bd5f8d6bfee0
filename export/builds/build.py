"""The float32 build of a checkpoint: two verified graphs, SAM's where it is used, the calibration, a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.engines.check import tensorrt_verdict
from export.errors import ExportError
from export.graphs.parts import part_files, write_parts
from export.graphs.structure import PARITY_BATCHES, check_parity, verify_foreground, verify_structure
from export.graphs.write import OPSET, write_foreground_graph, write_graphs
from export.manifest import FORMAT, GraphFiles, Manifest, library_versions
from export.parity.images import product_images
from export.product import ProductPaths
from export.records import FileRecord
from model_repository.alignment.reference_picture import FILE
from model_repository.image_size import ImageSize, size_text
from train.calibration.foreground import load_foreground
from train.checkpoint.tensors import Checkpoint, load_checkpoint, tensors_id
from train.data.category import CategoryData
from train.data.pictures.loading import load_images
from train.support.files import replacing_folder, sha256_of, write_text
from train.support.progress import console

FILES = ("teacher.onnx", "student.onnx", "foreground.onnx", "calibration.json", FILE)


def build_float32(product: ProductPaths, *, ask_tensorrt: bool) -> Manifest:
    """Write and verify a checkpoint's graphs; see `export.builds.up_to_date.build_category`."""
    checkpoint = load_checkpoint(product.checkpoint)
    _require_own(product, checkpoint)
    foreground = load_foreground(checkpoint.config.foreground, weights_dir=product.weights_dir)
    foreground.require_calibrated_with(checkpoint.calibration)
    data = product_images(checkpoint.provenance, product.images_dir)
    images = parity_images(checkpoint, data)
    with replacing_folder(product.build) as folder:
        files = GraphFiles.in_folder(folder)
        with console.status("Writing ONNX graphs"):
            write_graphs(checkpoint, files)
        with console.status("Verifying them against the checkpoint"):
            verify_structure(checkpoint, files)
            parity = check_parity(checkpoint, files, images)
            parts = write_parts(files, images) if checkpoint.config.is_native else {}
        verdict = difference = None
        if ask_tensorrt:
            with console.status("Asking TensorRT"):
                verdict = tensorrt_verdict(files, "fp32")
        if (sam := foreground.sam) is not None:
            with console.status("Writing and verifying SAM's graph"):
                path = folder / "foreground.onnx"
                write_foreground_graph(sam, path, image_size=checkpoint.config.image_size)
                difference = verify_foreground(sam, path, images)
        write_text(folder / "calibration.json", checkpoint.calibration.to_json())
        if checkpoint.reference is not None:
            made_with = checkpoint.provenance.versions["opencv"]
            write_text(folder / FILE, replace(checkpoint.reference, opencv=made_with).to_json())
        first, second, third = checkpoint.teacher.channels
        manifest = Manifest(
            format=FORMAT,
            category=product.category,
            release_id=checkpoint.release_id,
            weights_id=checkpoint.weights_id,
            teacher_id=teacher_id(checkpoint.teacher.state_dict(), checkpoint.config.image_size),
            precision="fp32",
            opset=OPSET,
            teacher_channels=(first, second, third),
            checkpoint_sha256=sha256_of(product.checkpoint),
            files={name: FileRecord.of(folder / name) for name in FILES if (folder / name).exists()}
            | {name: FileRecord.of(folder / name) for name in part_files(parts)},
            parity=parity,
            parity_images=str(data.root),
            foreground_id=foreground.id,
            foreground_difference=difference,
            tensorrt_verdict=verdict,
            parts=parts,
            config=checkpoint.config,
            provenance=checkpoint.provenance,
            versions=library_versions(),
        )
        manifest.write(folder)
    return manifest


def _require_own(product: ProductPaths, checkpoint: Checkpoint) -> None:
    """Make sure that a checkpoint is the product's.

    Raises:
        ExportError: it is not.
    """
    if checkpoint.provenance.category != product.category:
        raise ExportError(
            f"{product.checkpoint} was trained for category {checkpoint.provenance.category!r}; expected "
            f"{product.category!r}."
        )


def teacher_id(teacher: Mapping[str, Tensor], image_size: ImageSize) -> int:
    """Which teacher this is, 63 bits of its tensors and the image size; another torch may write another graph of it."""
    return hashed_id(f"{tensors_id(teacher)} {size_text(image_size)}")


def hashed_id(text: str) -> int:
    """The first 63 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def parity_images(checkpoint: Checkpoint, data: CategoryData) -> NDArray[np.uint8]:
    """Eight real images [8, H, W, 3] uint8, spread over the test set where there is one; one where they are large."""
    candidates = [image.path for image in data.test] or list(data.train_good)
    needed = 1 if checkpoint.config.is_native else max(PARITY_BATCHES)
    spread = np.linspace(0, len(candidates) - 1, num=min(needed, len(candidates))).astype(int)
    loaded = load_images(
        [candidates[index] for index in spread],
        image_size=checkpoint.config.image_size,
        strict=False,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        reference=checkpoint.reference,
        what="images for verification",
    )
    # A small set is gone through again.
    return np.resize(loaded.pixels, (needed, *loaded.pixels.shape[1:]))

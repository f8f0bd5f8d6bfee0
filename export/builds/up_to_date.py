"""build/<category>/: a category's graphs in each precision, made unless they are up to date.

build/<category>/ holds float32, build/<category>/<precision>/ the others. A new float32 build deletes the others,
which are of an earlier release. Torch and onnx take seconds to load, so only work that is to be done loads them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from export.agreement import LIMITS, Limits
from export.errors import ExportError
from export.manifest import Manifest, build_folder, find_build, library_versions, read_manifest
from export.parity.images import judged_fingerprint, product_images
from export.product import ProductPaths
from train.checkpoint.header import read_release_id
from train.support.files import sha256_of

# What the commands of this stage leave in a build's folder, which is replaced as a whole.
MADE_HERE = re.compile(
    r"(manifest|calibration|alignment|verification|latency)\.json|(teacher|student|foreground)\.(onnx|plan|rtx)"
    r"|(teacher|student)_part_\d\.onnx|flipped|rejected-\w+|fp16|int8|\..*"
)


@dataclass(frozen=True)
class BuildResult:
    """A build's manifest; `built` is False when it was up to date."""

    manifest: Manifest
    built: bool


def build_category(
    product: ProductPaths,
    precision: str = "fp32",
    *,
    force: bool = False,
    limits: Limits | None = None,
    ask_tensorrt: bool = False,
) -> BuildResult:
    """Write and verify a product's graphs, unless those of its checkpoint are up to date; float32 comes first.

    A build's folder is replaced as a whole, or left as it was when anything fails.

    Args:
        product: its checkpoint, images and builds.
        precision: one of `export.manifest.PRECISIONS`.
        force: build even when up to date.
        limits: how far fp16 and int8 may judge from PyTorch; those of `LIMITS` unless given.
        ask_tensorrt: accept only graphs that TensorRT for RTX takes too, where it is installed.

    Raises:
        UserError: no checkpoint, no images to check with, a folder that holds something else, or a graph that is not
            accepted. Of a refused fp16 or int8 build, <category>/rejected-<precision>/ shows the images that it judged
            otherwise.
    """
    float32 = None if force else _up_to_date_manifest(product, "fp32")
    if float32 is not None and precision == "fp32" and not _compared_on(float32, product.images_dir):
        float32 = None
    built = float32 is None
    if float32 is None:
        require_only_a_build(product.build)
        from export.builds.build import build_float32

        float32 = build_float32(product, ask_tensorrt=ask_tensorrt)
    if precision == "fp32":
        return BuildResult(float32, built)
    limits = limits or LIMITS[precision]
    folder = build_folder(product.build_dir, product.category, precision)
    manifest = None if force else _up_to_date_manifest(product, precision)
    if manifest is not None and manifest.limits == limits and _judged_with(manifest, product.images_dir):
        return BuildResult(manifest, built=False)
    require_only_a_build(folder)
    from export.builds.precisions import build_from_float32

    manifest = build_from_float32(
        product, float32, precision, folder=folder, limits=limits, ask_tensorrt=ask_tensorrt
    )
    return BuildResult(manifest, built=True)


def require_only_a_build(folder: Path) -> None:
    """A folder that is to be made or replaced holds nothing but what was made here, and there is a place for it.

    Raises:
        ExportError: it holds something else, which would be lost, is no folder, or cannot be made.
    """
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):  # known now, and not after minutes of work
        raise ExportError(
            f"{folder} cannot be written: {there} is no folder that this user may write to; give another one with "
            "--build-dir."
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is no folder; expected one for a build; give another with --build-dir.")
    if others := sorted(path.name for path in folder.iterdir() if not MADE_HERE.fullmatch(path.name)):
        raise ExportError(
            f"{folder} holds {others[0]}{' and others' if len(others) > 1 else ''}, which belongs to no build and "
            "would be lost; move it away, or give another folder with --build-dir."
        )


def _up_to_date_manifest(product: ProductPaths, precision: str) -> Manifest | None:
    """The manifest of a whole build of this checkpoint, written by today's libraries and not refused.

    Two checkpoint files of the same weights, which share a release id, may say otherwise what they were trained on.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be judged with.
    """
    release_id = read_release_id(product.checkpoint)
    try:
        manifest = read_manifest(find_build(product.build_dir, product.category, precision))
    except ExportError:
        return None
    found = (manifest.release_id, manifest.checkpoint_sha256, manifest.versions)
    expected = (release_id, sha256_of(product.checkpoint), library_versions())
    whole = bool(manifest.parts) == manifest.config.is_native  # builds of before have no parts
    return manifest if found == expected and whole and not manifest.refused else None


def _compared_on(float32: Manifest, images_dir: Path | None) -> bool:
    """Whether a float32 build was compared with PyTorch on the images of this folder, where one is given."""
    return images_dir is None or images_dir.absolute() == Path(float32.parity_images).absolute()


def _judged_with(manifest: Manifest, images_dir: Path | None) -> bool:
    """Whether the parity gate judged a build with the images that it would judge it with now.

    Where the images that it was trained on are gone, and no others are given, there is nothing to judge it with.

    Raises:
        ExportError: no images in the folder that was given.
        DataError: an image cannot be read.
    """
    try:
        data = product_images(manifest.provenance, images_dir)
    except ExportError:
        if images_dir is not None:
            raise
        return True
    return manifest.judged_fingerprint == judged_fingerprint(data)

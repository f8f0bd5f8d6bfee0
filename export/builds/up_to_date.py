"""build/<category>/: a category's graphs in each precision, made unless they are up to date.

build/<category>/ holds float32, build/<category>/<precision>/ the others. A new float32 build takes them away:
they would be of another release. Torch and onnx are loaded for work alone: they take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.agreement import LIMITS, Limits
from export.errors import ExportError
from export.manifest import FORMAT, Manifest, build_folder, library_versions, read_manifest
from train.checkpoint.header import read_release_id


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
    ask_tensorrt: bool = False,
) -> BuildResult:
    """Write and verify a category's graphs, unless those of its checkpoint are there already.

    Args:
        category: the product.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: takes <category>/; replaced as a whole, or left as it was when anything fails.
        images_dir: real images for the parity check; None means those of the training data.
        force: build even when up to date.
        weights_dir: where SAM's weights may lie, for a checkpoint that was calibrated with it.
        ask_tensorrt: accept only what TensorRT for RTX takes, too, where it is installed.

    Raises:
        UserError: no checkpoint, no images to check with, or a graph that is not accepted.
    """
    checkpoint_path = runs_dir / category / "checkpoint.safetensors"
    target = build_dir / category
    if not force:
        manifest = _up_to_date_manifest(target, release_id=read_release_id(checkpoint_path))
        if manifest is not None:
            return BuildResult(manifest, built=False)
    from export.builds.build import build_float32

    manifest = build_float32(
        category,
        checkpoint_path=checkpoint_path,
        target=target,
        images_dir=images_dir,
        weights_dir=weights_dir,
        ask_tensorrt=ask_tensorrt,
    )
    return BuildResult(manifest, built=True)


def build_precision(
    category: str,
    precision: str,
    *,
    runs_dir: Path,
    build_dir: Path,
    images_dir: Path | None,
    force: bool,
    limits: Limits | None = None,
    weights_dir: Path | None = None,
    ask_tensorrt: bool = False,
) -> BuildResult:
    """Write a category's graphs in a precision and hold them to the parity gate; float32 comes first.

    Args:
        category: the product.
        precision: one of `export.manifest.PRECISIONS`.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: takes <category>/ and <category>/<precision>/.
        images_dir: the product's images, in place of those it was trained on.
        force: build even when up to date.
        limits: of the gate; those of `LIMITS` unless given.
        weights_dir: where SAM's weights may lie.
        ask_tensorrt: accept only what TensorRT for RTX takes, too, where it is installed.

    Raises:
        UserError: no checkpoint or images, or a graph that is not accepted; nothing is left but, in
            <category>/rejected-<precision>/, the images that were judged otherwise.
    """
    whole = build_category(
        category,
        runs_dir=runs_dir,
        build_dir=build_dir,
        images_dir=images_dir,
        force=force,
        weights_dir=weights_dir,
        ask_tensorrt=ask_tensorrt,
    )
    if precision == "fp32":
        return whole
    limits = limits or LIMITS[precision]
    target = build_folder(build_dir, category, precision)
    if not force:
        manifest = _up_to_date_manifest(target, release_id=whole.manifest.release_id)
        if manifest is not None and manifest.limits == limits:
            return BuildResult(manifest, built=False)
    from export.builds.precisions import build_from_float32

    manifest = build_from_float32(
        whole.manifest,
        precision,
        checkpoint_path=runs_dir / category / "checkpoint.safetensors",
        source_dir=build_dir / category,
        target=target,
        images_dir=images_dir,
        limits=limits,
        weights_dir=weights_dir,
        ask_tensorrt=ask_tensorrt,
    )
    return BuildResult(manifest, built=True)


def _up_to_date_manifest(target: Path, *, release_id: int) -> Manifest | None:
    """Of a build that is whole, of this release, written by today's libraries, and not refused by the gate."""
    try:
        manifest = read_manifest(target)
    except ExportError:
        return None
    found = (manifest.format, manifest.release_id, manifest.versions)
    same = found == (FORMAT, release_id, library_versions())
    return manifest if same and not manifest.refused else None

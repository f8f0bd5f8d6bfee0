"""build/<category>/: a category's graphs in each precision, made unless they are up to date.

build/<category>/ holds float32, build/<category>/<precision>/ the others. A new float32 build deletes the others,
which are of an earlier release. Torch and onnx take seconds to load, so only work that is to be done loads them.
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
    """A build's manifest; `built` is False when it was up to date."""

    manifest: Manifest
    built: bool


def build_category(
    category: str,
    precision: str = "fp32",
    *,
    runs_dir: Path,
    build_dir: Path,
    images_dir: Path | None,
    force: bool,
    limits: Limits | None = None,
    weights_dir: Path | None = None,
    ask_tensorrt: bool = False,
) -> BuildResult:
    """Write and verify a category's graphs, unless those of its checkpoint are up to date; float32 comes first.

    Args:
        category: the product.
        precision: one of `export.manifest.PRECISIONS`.
        runs_dir: holds <category>/checkpoint.safetensors.
        build_dir: takes <category>/ and <category>/<precision>/. Each is replaced as a whole, or left as it was when
            anything fails.
        images_dir: the product's images, in place of those it was trained on.
        force: build even when up to date.
        limits: how far fp16 and int8 may judge from PyTorch; those of `LIMITS` unless given.
        weights_dir: where SAM's weights may lie, for a checkpoint that was calibrated with it.
        ask_tensorrt: accept only graphs that TensorRT for RTX takes too, where it is installed.

    Raises:
        UserError: no checkpoint, no images to check with, or a graph that is not accepted. Of a refused fp16 or int8
            build, <category>/rejected-<precision>/ shows the images that it judged otherwise.
    """
    checkpoint_path = runs_dir / category / "checkpoint.safetensors"
    float32_dir = build_dir / category
    float32 = None if force else _up_to_date_manifest(float32_dir, read_release_id(checkpoint_path))
    built = float32 is None
    if float32 is None:
        from export.builds.build import build_float32

        float32 = build_float32(
            category,
            checkpoint_path=checkpoint_path,
            target=float32_dir,
            images_dir=images_dir,
            weights_dir=weights_dir,
            ask_tensorrt=ask_tensorrt,
        )
    if precision == "fp32":
        return BuildResult(float32, built)
    limits = limits or LIMITS[precision]
    target = build_folder(build_dir, category, precision)
    manifest = None if force else _up_to_date_manifest(target, float32.release_id)
    if manifest is not None and manifest.limits == limits:
        return BuildResult(manifest, built=False)
    from export.builds.precisions import build_from_float32

    manifest = build_from_float32(
        float32,
        precision,
        checkpoint_path=checkpoint_path,
        source_dir=float32_dir,
        target=target,
        images_dir=images_dir,
        limits=limits,
        weights_dir=weights_dir,
        ask_tensorrt=ask_tensorrt,
    )
    return BuildResult(manifest, built=True)


def _up_to_date_manifest(target: Path, release_id: int) -> Manifest | None:
    """The manifest of a whole build of this release, written by today's libraries and not refused by the gate."""
    try:
        manifest = read_manifest(target)
    except ExportError:
        return None
    written_as = (manifest.format, manifest.release_id, manifest.versions)
    current = written_as == (FORMAT, release_id, library_versions())
    return manifest if current and not manifest.refused else None

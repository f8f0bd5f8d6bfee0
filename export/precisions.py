"""Builds in half precision and int8: made from the verified float32 graphs, accepted by the parity gate.

build/<category>/ holds float32, build/<category>/<precision>/ the others. A new float32 build takes them away:
they would be of another release.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import onnx
import torch

from export.agreement import LIMITS, Agreement, Limits
from export.build import BuildResult, build_category, product_images
from export.engine_check import tensorrt_verdict
from export.errors import ExportError, VerificationError
from export.half import to_half
from export.manifest import FileRecord, GraphFiles, Manifest, build_folder, read_manifest
from export.parity import JudgedTestSet, OnnxJudge
from export.quantization import Sensitivity, quantize
from export.tensors import TEACHER_OUTPUTS
from export.verification import verify_structure
from train.checkpoint import Checkpoint, load_checkpoint
from train.data import CategoryData, load_images, split_good
from train.files import replacing_folder, sha256_of, write_text
from train.foreground import load_foreground
from train.progress import console


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
    folder, limits = build_dir / category, limits or LIMITS[precision]
    target = build_folder(build_dir, category, precision)
    if not force:
        manifest = _up_to_date_manifest(target, whole.manifest, limits)
        if manifest is not None:
            return BuildResult(manifest, built=False)
    checkpoint = load_checkpoint(runs_dir / category / "checkpoint.safetensors")
    data = product_images(checkpoint, images_dir)
    source = GraphFiles.in_folder(folder)
    with replacing_folder(target) as new:
        files = GraphFiles.in_folder(new)
        kept: list[Sensitivity] = []
        if precision == "fp16":
            write_half(source, files)
        else:
            kept = write_int8(source, files, checkpoint, data)
        verify_structure(checkpoint, files)
        verdict = tensorrt_verdict(files, precision) if ask_tensorrt else None
        agreement = hold_to_gate(
            checkpoint,
            data,
            files,
            precision=precision,
            limits=limits,
            rejected_dir=folder / f"rejected-{precision}",
            weights_dir=weights_dir,
        )
        for name in whole.manifest.files:
            if not (new / name).exists():  # the calibration, and SAM
                shutil.copyfile(folder / name, new / name)
        manifest = write_manifest(
            whole.manifest,
            new,
            precision,
            kept=kept,
            agreement=agreement,
            limits=limits,
            tensorrt_verdict=verdict,
        )
    return BuildResult(manifest, built=True)


def write_half(source: GraphFiles, files: GraphFiles) -> None:
    """Both graphs in half precision; half the traffic between teacher and student too.

    Raises:
        VerificationError: a weight that no half can hold.
    """
    features = TEACHER_OUTPUTS
    onnx.save(to_half(onnx.load(source.teacher), half_outputs=features), files.teacher)
    onnx.save(to_half(onnx.load(source.student), half_inputs=features), files.student)


def write_int8(
    source: GraphFiles, files: GraphFiles, checkpoint: Checkpoint, data: CategoryData
) -> list[Sensitivity]:
    """Both graphs in int8, calibrated on the good images that the checkpoint was trained on.

    Returns:
        The convolutions that stayed in float.

    Raises:
        ExportError: other images than those it was trained on, or too few.
    """
    if data.fingerprint() != checkpoint.provenance.data_fingerprint:
        raise ExportError(
            f"int8 is calibrated on the good images that the checkpoint was trained on, and {data.root} does not hold "
            "them; give them with --images, or export with --precision fp16."
        )
    config = checkpoint.config
    images = load_images(data.train_good, image_size=config.image_size, strict=False, what="good images")
    trained_on, _ = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    quantized = quantize(source, images.pixels[trained_on], checkpoint.calibration)
    onnx.save(quantized.teacher, files.teacher)
    onnx.save(quantized.student, files.student)
    console.print(
        f"int8: {quantized.n_convolutions - len(quantized.kept)} of {quantized.n_convolutions} convolutions; the "
        f"others stay in float (anomaly maps change by {quantized.change:.0%} of their spread)."
    )
    return quantized.kept


def hold_to_gate(
    checkpoint: Checkpoint,
    data: CategoryData,
    files: GraphFiles,
    *,
    precision: str,
    limits: Limits,
    rejected_dir: Path,
    weights_dir: Path | None = None,
) -> Agreement:
    """Judge the test set with the graphs and with PyTorch.

    Args:
        checkpoint: what the graphs were made from.
        data: its category's images.
        files: the graphs.
        precision: what to call them.
        limits: how far they may be from PyTorch.
        rejected_dir: takes a picture of each image whose label differs, when they are not accepted.
        weights_dir: where SAM's weights may lie.

    Raises:
        VerificationError: beyond a limit.
    """
    finder = load_foreground(checkpoint.config.foreground, weights_dir=weights_dir)
    judged = JudgedTestSet.of(checkpoint, data, foreground=finder, device=torch.device("cpu"))
    judge = OnnxJudge(f"ONNX {precision}", precision, files, checkpoint.calibration)
    maps = judge.maps(judged.images)
    hashes = {path.name: sha256_of(path) for path in (files.teacher, files.student)}
    agreement = judged.compare(judge.name, precision, maps, limits, files=hashes)
    shutil.rmtree(rejected_dir, ignore_errors=True)  # of a try before
    if not agreement.accepted:
        written = judged.write_flipped(maps, rejected_dir)
        where = f"; the images judged otherwise lie in {rejected_dir}" if written else ""
        raise VerificationError(
            f"{judge.name} does not judge as the checkpoint does: {'; '.join(agreement.beyond_limits)}{where}; "
            "nothing was written."
        )
    return agreement


def write_manifest(
    whole: Manifest,
    folder: Path,
    precision: str,
    *,
    kept: list[Sensitivity],
    agreement: Agreement,
    limits: Limits,
    tensorrt_verdict: str | None,
) -> Manifest:
    """The float32 manifest with what is this precision's own."""
    records = {name: FileRecord.of(folder / name) for name in whole.files}
    manifest = whole.model_copy(
        update={
            "precision": precision,
            # A half-precision teacher is the same for all categories; int8 is calibrated on one.
            "teacher_id": _other_id(whole.teacher_id, precision, records["teacher.onnx"].sha256),
            "files": records,
            "parity": [],
            "agreements": [agreement],
            "limits": limits,
            "tensorrt_verdict": tensorrt_verdict,
            "engines": {},
            "kept_in_float": [f"{found.graph}: {found.node} ({found.change:.3f})" for found in kept],
        }
    )
    write_text(folder / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _other_id(teacher_id: int, precision: str, sha256: str) -> int:
    named = f"{teacher_id} {precision} {sha256 if precision == 'int8' else ''}"
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big") >> 1


def _up_to_date_manifest(target: Path, whole: Manifest, limits: Limits) -> Manifest | None:
    try:
        manifest = read_manifest(target)
    except ExportError:
        return None
    same = (manifest.release_id, manifest.versions) == (whole.release_id, whole.versions)
    return manifest if same and not manifest.refused and manifest.limits == limits else None

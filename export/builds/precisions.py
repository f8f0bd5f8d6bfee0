"""Builds in half precision and int8: made from the verified float32 graphs, accepted by the parity gate."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import onnx
import torch

from export.agreement import Agreement, Limits
from export.builds.build import product_images
from export.engines.check import tensorrt_verdict
from export.errors import ExportError, VerificationError
from export.graphs.fp16 import to_half
from export.graphs.int8 import Sensitivity, quantize
from export.graphs.structure import verify_structure
from export.manifest import FileRecord, GraphFiles, Manifest
from export.parity.judges import JudgedTestSet, OnnxJudge
from export.tensors import TEACHER_OUTPUTS
from train.calibration.foreground import load_foreground
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData, load_images, split_good
from train.support.files import replacing_folder, sha256_of, write_text
from train.support.progress import console


def build_from_float32(
    whole: Manifest,
    precision: str,
    *,
    checkpoint_path: Path,
    source_dir: Path,
    target: Path,
    images_dir: Path | None,
    limits: Limits,
    weights_dir: Path | None,
    ask_tensorrt: bool,
) -> Manifest:
    """Write a category's graphs in fp16 or int8 and hold them to the parity gate.

    See `export.builds.up_to_date.build_precision`.

    Args:
        whole: of the float32 build, which lies in `source_dir`.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    data = product_images(checkpoint, images_dir)
    source = GraphFiles.in_folder(source_dir)
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
            rejected_dir=source_dir / f"rejected-{precision}",
            weights_dir=weights_dir,
        )
        for name in whole.files:
            if not (new / name).exists():  # the calibration, and SAM
                shutil.copyfile(source_dir / name, new / name)
        return write_manifest(
            whole,
            new,
            precision,
            kept=kept,
            agreement=agreement,
            limits=limits,
            tensorrt_verdict=verdict,
        )


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

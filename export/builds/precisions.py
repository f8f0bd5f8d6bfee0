"""Builds in half precision and int8: made from the verified float32 graphs, accepted by the parity gate."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.agreement import Agreement, Limits
from export.builds.build import hashed_id, parity_images
from export.engines.check import tensorrt_verdict
from export.errors import ExportError, VerificationError
from export.graphs.fp16 import to_half
from export.graphs.int8 import Sensitivity, quantize
from export.graphs.parts import part_files, write_parts
from export.graphs.structure import verify_structure
from export.manifest import GraphFiles, Manifest
from export.parity.flipped import write_flipped
from export.parity.images import judged_fingerprint, product_images
from export.parity.judges import Answers, GraphJudge, JudgedTestSet
from export.product import ProductPaths
from export.records import FileRecord
from export.tensors import TEACHER_OUTPUTS
from train.checkpoint.tensors import Checkpoint, load_checkpoint
from train.data.category import CategoryData, split_good
from train.data.pictures.loading import load_images
from train.support.files import replacing_folder, sha256_of
from train.support.progress import console

# Where a cut is rounded to half precision, ONNX Runtime on a CPU may keep single precision in one graph; of the largest
# value.
ROUNDED_DIFFERENCE = 1e-2


def build_from_float32(
    product: ProductPaths,
    float32: Manifest,
    precision: str,
    *,
    folder: Path,
    limits: Limits,
    ask_tensorrt: bool,
) -> Manifest:
    """Write a product's graphs in fp16 or int8 to a folder and hold them to the parity gate.

    See `export.builds.up_to_date.build_category`; `float32` is the manifest of the float32 build.
    """
    checkpoint = load_checkpoint(product.checkpoint)
    data = product_images(checkpoint.provenance, product.images_dir)
    source = GraphFiles.in_folder(product.build)
    with replacing_folder(folder) as new:
        files = GraphFiles.in_folder(new)
        in_float: list[Sensitivity] = []
        if precision == "fp16":
            write_half(source, files)
        else:
            in_float = write_int8(source, files, checkpoint, data)
        verify_structure(checkpoint, files)
        verdict = tensorrt_verdict(files, precision) if ask_tensorrt else None
        agreement = hold_to_gate(
            JudgedTestSet.of(checkpoint, data, weights_dir=product.weights_dir),
            files,
            precision=precision,
            limits=limits,
            rejected_dir=product.build / f"rejected-{precision}",
        )
        parts = {}
        if checkpoint.config.is_native:
            parts = write_parts(files, parity_images(checkpoint, data), max_difference=ROUNDED_DIFFERENCE)
        unchanged = float32.files.keys() - part_files(float32.parts)
        for name in unchanged:
            if not (new / name).exists():  # the calibration, and SAM
                shutil.copyfile(product.build / name, new / name)
        records = {name: FileRecord.of(new / name) for name in (*unchanged, *part_files(parts))}
        # A half-precision teacher is the same for all categories; int8 is calibrated on one.
        own_sha256 = records["teacher.onnx"].sha256 if precision == "int8" else ""
        manifest = float32.model_copy(
            update={
                "precision": precision,
                "teacher_id": hashed_id(f"{float32.teacher_id} {precision} {own_sha256}"),
                "files": records,
                "parts": parts,
                "parity": [],
                "agreements": [agreement],
                "limits": limits,
                "judged_fingerprint": judged_fingerprint(data),
                "tensorrt_verdict": verdict,
                "engines": {},
                "kept_in_float": [f"{conv.graph}: {conv.node} ({conv.change:.3f})" for conv in in_float],
            }
        )
        manifest.write(new)
    return manifest


def write_half(source: GraphFiles, files: GraphFiles) -> None:
    """Write both graphs in half precision, and the features that pass between them.

    Raises:
        VerificationError: a weight is larger than half precision can hold.
    """
    features = TEACHER_OUTPUTS
    onnx.save(to_half(onnx.load(source.teacher), half_outputs=features), files.teacher)
    onnx.save(to_half(onnx.load(source.student), half_inputs=features), files.student)


def write_int8(
    source: GraphFiles, files: GraphFiles, checkpoint: Checkpoint, data: CategoryData
) -> list[Sensitivity]:
    """Write both graphs in int8, calibrated on the good images that the checkpoint was trained on.

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
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=False,
        bit_depth=checkpoint.provenance.bit_depth,
        keep_aspect=checkpoint.provenance.keep_aspect,
        reference=checkpoint.reference,
        what="good images",
    )
    pixels = images.pixels
    if config.is_native:  # their middles, as large as what the networks were trained on
        pixels = _middles(pixels, config.crop_size)
    trained_on, _ = split_good(len(pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    quantized = quantize(source, pixels[trained_on], checkpoint.calibration)
    onnx.save(quantized.teacher, files.teacher)
    onnx.save(quantized.student, files.student)
    console.print(
        f"int8: {quantized.n_convolutions - len(quantized.in_float)} of {quantized.n_convolutions} convolutions; the "
        f"others stay in float (anomaly maps change by {quantized.change:.0%} of their spread)."
    )
    return quantized.in_float


def _middles(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The squares in the middle of pictures [N, H, W, 3], or all of a side that is shorter."""
    height, width = (min(side, whole) for whole in pixels.shape[1:3])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def hold_to_gate(
    judged: JudgedTestSet, files: GraphFiles, *, precision: str, limits: Limits, rejected_dir: Path
) -> Agreement:
    """Judge the test set with ONNX graphs and hold their answers to the limits.

    Raises:
        VerificationError: beyond a limit; `rejected_dir` shows each image whose label differs from PyTorch's.
    """
    judge = GraphJudge.of_onnx(precision, files, judged.calibration)
    hashes = {path.name: sha256_of(path) for path in files}
    answers = Answers(judge.name, precision, hashes, judge.maps(judged.images, judged.shown))
    agreement = judged.compare(answers, limits)
    shutil.rmtree(rejected_dir, ignore_errors=True)  # of an earlier try
    if not agreement.accepted:
        written = write_flipped(judged, answers, rejected_dir)
        where = f"; the images judged otherwise lie in {rejected_dir}" if written else ""
        raise VerificationError(
            f"{judge.name} does not judge as the checkpoint does: {'; '.join(agreement.beyond_limits)}{where}; "
            "nothing was written."
        )
    return agreement

"""Judge the test set with the server's own fusion, and measure how well."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.distance_fusion.map_fusion import Verdict, fuse_distances, judge, remove_background
from train.calibration.foreground import ForegroundFinder, find_foreground, load_foreground
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, TestImage, load_images
from train.data.ground_truth import load_masks
from train.evaluation.breakdown import JudgedSet, measures_of
from train.evaluation.metrics import auroc
from train.method.student import compute_distances
from train.support.arrays import FloatArray
from train.support.files import write_text


@dataclass(frozen=True)
class Evaluation:
    """A judged test set.

    Attributes:
        metrics: the content of metrics.json.
        test: the test images that could be read.
        pixels: [N, S, S, 3] uint8, those images.
        verdict: of each of them, in their order.
        masks: [N, S, S] ground truth, all False where an image has no mask file; None where no image has one.
    """

    metrics: dict[str, Any]
    test: tuple[TestImage, ...]
    pixels: NDArray[np.uint8]
    verdict: Verdict
    masks: NDArray[np.bool_] | None

    @property
    def labels(self) -> NDArray[np.bool_]:
        """[N]: which images show a defect."""
        return np.array([image.anomalous for image in self.test], bool)


def compute_maps(
    checkpoint: Checkpoint, images: NDArray[np.uint8], *, device: torch.device, what: str
) -> FloatArray:
    """Anomaly maps [N, S, S] of images, before the background is removed; see `compute_distances`."""
    checkpoint.teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    distances = compute_distances(
        checkpoint.teacher,
        checkpoint.student,
        images,
        scale=checkpoint.config.distance_scale,
        device=device,
        what=what,
    )
    return fuse_distances(distances, checkpoint.calibration.fusion)


def evaluate(
    checkpoint: Checkpoint,
    data: CategoryData,
    *,
    foreground: ForegroundFinder | None = None,
    device: torch.device,
    strict: bool,
) -> Evaluation | None:
    """Judge a category's test set; None where it has none.

    Args:
        checkpoint: networks and calibration.
        data: holds the test set.
        foreground: the finder that the calibration is for; None loads the checkpoint's own.
        device: where to compute.
        strict: a broken image stops the run.

    Raises:
        DataError: no test image, or a mask, can be read, or a mask contradicts its image.
        WeightsError: another SAM than the calibration's.
    """
    if not data.test:
        return None
    foreground = foreground or load_foreground(checkpoint.config.foreground, weights_dir=None)
    foreground.require_calibrated_with(checkpoint.calibration)
    config = checkpoint.config
    images = load_images(
        [image.path for image in data.test], image_size=config.image_size, strict=strict, what="test images"
    )
    test = tuple(data.test[index] for index in images.kept)
    masks = load_masks(test, image_size=config.image_size)  # a wrong mask stops here, before the long part
    whole_map = compute_maps(checkpoint, images.pixels, device=device, what="Evaluation")
    parts = find_foreground(images.pixels, foreground, device=device)
    verdict = judge(remove_background(whole_map, parts), checkpoint.calibration)
    return Evaluation(
        metrics={
            **measure(verdict, test, masks),
            **describe(checkpoint),
            **measure_foreground(whole_map, parts, test, method=foreground.method),
            "n_broken": len(images.broken),
            "test_fingerprint": data.test_fingerprint(),
        },
        test=test,
        pixels=images.pixels,
        verdict=verdict,
        masks=masks,
    )


def measure(verdict: Verdict, test: tuple[TestImage, ...], masks: NDArray[np.bool_] | None) -> dict[str, Any]:
    """The measures of Section 4.1, the rates of false rejects and escapes, and both by defect kind and size."""
    return {
        **measures_of(judged_set(verdict, test, masks)),
        "threshold": float(verdict.threshold[0, 0]),
    }


def judged_set(verdict: Verdict, test: tuple[TestImage, ...], masks: NDArray[np.bool_] | None) -> JudgedSet:
    """A verdict without its batch dimensions, beside the ground truth."""
    return JudgedSet(
        test=test,
        scores=verdict.pred_score[:, 0],
        rejected=verdict.pred_label[:, 0],
        maps=verdict.anomaly_map,
        masks=masks,
    )


def measure_foreground(
    whole_map: FloatArray, parts: NDArray[np.bool_] | None, test: tuple[TestImage, ...], *, method: str
) -> dict[str, Any]:
    """For Table 9: image AUROC of the same maps with their background, and the share of pixels that show the part."""
    labels = np.array([image.anomalous for image in test], bool)
    if parts is None:
        return {"foreground": method, "foreground_share": None, "image_auroc_without_foreground": None}
    return {
        "foreground": method,
        "foreground_share": float(parts.mean()),
        "image_auroc_without_foreground": auroc(whole_map.max(axis=(1, 2)), labels),
    }


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was measured: category, data, preset, seed, release id."""
    provenance = checkpoint.provenance
    return {
        "category": provenance.category,
        "dataset": provenance.dataset,
        "synthetic": provenance.synthetic,
        "preset": checkpoint.config.preset,
        "image_size": checkpoint.config.image_size,
        "seed": checkpoint.config.seed,
        "seconds_train": provenance.seconds_train,
        "n_train": provenance.n_train,
        "n_held_out": provenance.n_held_out,
        "release_id": checkpoint.release_id,
        "data_fingerprint": provenance.data_fingerprint,
        "weights": provenance.weights,
    }


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json."""
    write_text(path, json.dumps(metrics, indent=2) + "\n")

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
from train.backbones import Backbone
from train.checkpoint import Checkpoint, read_release_id
from train.data import CategoryData, TestImage, load_images, load_masks
from train.files import write_text
from train.foreground import ForegroundFinder, find_foreground, load_foreground
from train.metrics import auroc, per_region_overlap
from train.model import Student, distance_maps
from train.progress import progress_bar

BATCH_SIZE = 16
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """A judged test set.

    Attributes:
        metrics: what stands in metrics.json.
        test: the test images that could be read.
        pixels: [N, S, S, 3] uint8, those images.
        verdict: of each of them, in their order.
        masks: [N, S, S] ground truth, or None.
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


def compute_distances(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    alpha: float,
    device: torch.device,
    what: str,
) -> list[FloatArray]:
    """Distance maps of images, as in the testing process (Section 3.4): no masking.

    Args:
        teacher: in evaluation mode.
        student: in evaluation mode.
        images: [N, S, S, 3] uint8.
        alpha: weight of the L2 distance.
        device: where both networks are.
        what: what the progress bar says.

    Returns:
        [N, h, h] float32 a stage.
    """
    batches = []
    with torch.inference_mode(), progress_bar(what, len(images)) as bar:
        for start in range(0, len(images), BATCH_SIZE):
            image = torch.from_numpy(images[start : start + BATCH_SIZE]).to(device)
            distances = distance_maps(student(image), teacher(image), alpha=alpha)
            batches.append([distance.cpu().numpy() for distance in distances])
            bar.advance(len(image))
    return [np.concatenate(stage) for stage in zip(*batches, strict=True)]


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
        foreground: the method that the calibration is for, where it is ready already.
        device: where to compute.
        strict: a broken image stops the run.

    Raises:
        DataError: no test image, or a mask, can be read.
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
    checkpoint.teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    distances = compute_distances(
        checkpoint.teacher,
        checkpoint.student,
        images.pixels,
        alpha=config.alpha,
        device=device,
        what="Evaluation",
    )
    whole_map = fuse_distances(distances, checkpoint.calibration)
    parts = find_foreground(images.pixels, foreground, device=device)
    verdict = judge(remove_background(whole_map, parts), checkpoint.calibration)
    masks = load_masks(test, image_size=config.image_size)
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
    """The measures of Section 4.1, and the two rates that a factory pays for; None where they cannot be had."""
    labels = np.array([image.anomalous for image in test], bool)
    rejected = verdict.pred_label[:, 0]
    has_masks = masks is not None and bool(masks.any())
    return {
        "image_auroc": auroc(verdict.pred_score[:, 0], labels),
        "pixel_auroc": auroc(verdict.anomaly_map, masks) if has_masks and masks is not None else None,
        "pro": per_region_overlap(verdict.anomaly_map, masks) if has_masks and masks is not None else None,
        "threshold": float(verdict.threshold[0, 0]),
        "false_reject_rate": float(rejected[~labels].mean()) if (~labels).any() else None,
        "escape_rate": float((~rejected[labels]).mean()) if labels.any() else None,
        "n_test": len(test),
        "n_test_good": int((~labels).sum()),
        "n_test_anomalous": int(labels.sum()),
    }


def measure_foreground(
    whole_map: FloatArray, parts: NDArray[np.bool_] | None, test: tuple[TestImage, ...], *, method: str
) -> dict[str, Any]:
    """Table 9: the image AUROC of the same maps with their background, and how much of the pictures is part."""
    labels = np.array([image.anomalous for image in test], bool)
    if parts is None:
        return {"foreground": method, "foreground_share": None, "image_auroc_without_foreground": None}
    return {
        "foreground": method,
        "foreground_share": float(parts.mean()),
        "image_auroc_without_foreground": auroc(whole_map.max(axis=(1, 2)), labels),
    }


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was measured: category, data, preset, seed, release."""
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


def is_up_to_date(
    metrics_path: Path, *, checkpoint_path: Path, data: CategoryData, foreground: str = "none"
) -> bool:
    """Whether metrics.json is of this very checkpoint, test set and foreground.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    try:
        metrics = json.loads(metrics_path.read_text())
    except (FileNotFoundError, ValueError):
        return False
    found = tuple(metrics.get(name) for name in ("foreground", "release_id", "test_fingerprint"))
    return found == (foreground, read_release_id(checkpoint_path), data.test_fingerprint())


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json."""
    write_text(path, json.dumps(metrics, indent=2) + "\n")

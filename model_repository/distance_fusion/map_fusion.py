"""Distance maps in, anomaly map and verdict out: Section 3.4 of the paper, in numpy alone.

The server fuses with this very file and training evaluates with it: what is measured is what is served. It imports
numpy and nothing else. What is not finite is an error and never a label: NaN exceeds no threshold.

Upsampling, blur and pooling are linear and separable: one matrix a stage and side, built once (`fusion_matrix`):

    anomaly_map = sum_n  stage_weight_n * A_n @ distance_n @ A_n.T
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

STRIDES = (4, 8, 16)  # pixels for each position of the three stages' distance maps
LARGEST = float(np.finfo(np.float32).max)
# What a calibration may hold. Image size and sigma bound the memory that a fusion matrix takes.
RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "release_id": (int, 0, 2**63 - 1),
    "image_size": (int, 1, 2048),
    "smoothing_sigma": (float, 0, 1024),
    "pool_size": (int, 1, 2048),
    "score_share": (float, 0, 1),
    "image_threshold": (float, -LARGEST, LARGEST),
    "pixel_threshold": (float, -LARGEST, LARGEST),
}
# What the server answers, in this order: the fields of `Verdict`, and the release that judged.
VERDICT_OUTPUTS = ("anomaly_map", "pred_score", "pred_label", "pred_mask", "threshold", "release_id")
MAP_OUTPUTS = ("anomaly_map", "pred_mask")  # those that a request for the score alone leaves out


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the stages' distance maps become one anomaly map (Section 3.4).

    Attributes:
        image_size: side of the square anomaly map in pixels.
        smoothing_sigma: standard deviation of the Gaussian blur, in pixels.
        pool_size: side of the average pooling window, in pixels; odd.
        stage_weights: factor of each stage's distance map, at least 0.
    """

    image_size: int
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a release turns distance maps into verdicts; fitted on held-out good images.

    Attributes:
        release_id: the release it belongs to, see `train.checkpoint.tensors.release_id`.
        category: the product, for messages.
        image_size, smoothing_sigma, pool_size, stage_weights: see `Fusion`.
        image_threshold: an image whose score exceeds it is judged anomalous.
        pixel_threshold: a pixel whose anomaly exceeds it belongs to the predicted mask.
        foreground: how the background was removed, `none`, `threshold` or `sam`; older releases lack it: not at all.
        foreground_id: which SAM did it, see `train.calibration.sam`; 0 for the other two.
        score_share: see `image_scores`; older releases lack it: the maximum.
    """

    release_id: int
    category: str
    image_size: int
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]
    image_threshold: float
    pixel_threshold: float
    foreground: str = "none"
    foreground_id: int = 0
    score_share: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError that names each value no verdict can rest on: not finite, out of range or no number."""
        faults = [
            f"{name} {getattr(self, name)!r}, expected {least:.4g} to {most:.4g}"
            for name, (kind, least, most) in RANGES.items()
            if not _is_number(getattr(self, name), least, most, kind=kind)
        ]
        weights = self.stage_weights
        if len(weights) != 3 or not any(weights) or not all(_is_number(w, 0, LARGEST) for w in weights):
            faults.append(f"stage_weights {list(weights)}, expected three of at least 0, one of them above")
        if faults:
            raise ValueError(f"a calibration holds {'; '.join(faults)}")

    @property
    def fusion(self) -> Fusion:
        """The part of it that makes anomaly maps; the thresholds judge them."""
        return Fusion(**{field.name: getattr(self, field.name) for field in fields(Fusion)})

    def to_json(self) -> str:
        """The calibration as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is no JSON object, a field is missing or unknown, or a value cannot be used.
        """
        values: Any = json.loads(text)
        expected = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, dict) or not required <= values.keys() <= expected:
            given = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"a calibration has the fields {sorted(expected)}, found {given}")
        weights = values["stage_weights"]
        return cls(**{**values, "stage_weights": tuple(weights) if isinstance(weights, list) else ()})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration from a file; raises as `from_json`, or OSError."""
        return cls.from_json(path.read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the server answers, for a batch of B images of S x S pixels.

    Attributes:
        anomaly_map: [B, S, S] float32; 0 where student and teacher agree, larger where they do not.
        pred_score: [B, 1] float32; see `image_scores`.
        pred_label: [B, 1] bool; the score exceeds the threshold.
        pred_mask: [B, S, S] bool; the anomaly exceeds the pixel threshold.
        threshold: [B, 1] float32; the image threshold that was used.
    """

    anomaly_map: FloatArray
    pred_score: FloatArray
    pred_label: NDArray[np.bool_]
    pred_mask: NDArray[np.bool_]
    threshold: FloatArray


def upsampling_matrix(source: int, target: int) -> FloatArray:
    """Bilinear upsampling (`align_corners=False`) of one side as a [target, source] matrix."""
    position = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, source - 1)
    fraction = position - lower
    matrix = np.zeros((target, source), np.float32)
    rows = np.arange(target)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, upper), fraction)
    return matrix


def gaussian_matrix(size: int, sigma: float) -> FloatArray:
    """Gaussian blur of one side as a [size, size] matrix, as SciPy's `gaussian_filter`: to 4 sigma, border mirrored."""
    if sigma == 0:
        return np.eye(size, dtype=np.float32)
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    mirrored = (np.arange(size)[:, None] + offsets) % (2 * size)
    columns = np.minimum(mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((size, size), np.float64)
    np.add.at(matrix, (np.arange(size)[:, None], columns), kernel)
    return matrix.astype(np.float32)


def pooling_matrix(size: int, window: int) -> FloatArray:
    """Average pooling of one side, stride 1, over the pixels that exist, as a [size, size] matrix."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size))
    inside = (distance <= window // 2).astype(np.float32)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)


def fusion_matrix(source: int, *, target: int, sigma: float, window: int) -> FloatArray:
    """Upsampling, then blur, then pooling of one side as one [target, source] matrix."""
    blurred = gaussian_matrix(target, sigma) @ upsampling_matrix(source, target)
    return np.ascontiguousarray(pooling_matrix(target, window) @ blurred)


@lru_cache(maxsize=64)
def _fusion_matrices(
    sources: tuple[int, ...], *, target: int, sigma: float, window: int
) -> tuple[FloatArray, ...]:
    """`fusion_matrix` of each stage, then all of them side by side; built once a shape."""
    matrices = [fusion_matrix(source, target=target, sigma=sigma, window=window) for source in sources]
    return *matrices, np.hstack(matrices)


def fuse_distances(distances: list[FloatArray], fusion: Fusion) -> FloatArray:
    """Accumulate the stages' distance maps into anomaly maps (Section 3.4).

    Args:
        distances: one [B, h, h] float32 array a stage, h being the image size over the stage's stride.
        fusion: image size, smoothing and stage weights.

    Returns:
        [B, S, S] float32, S being the image size.

    Raises:
        ValueError: distance maps of another image size or number, or an image's are not finite.
    """
    expected = [(fusion.image_size // stride,) * 2 for stride in STRIDES]
    if (shapes := [stage.shape[1:] for stage in distances]) != expected or expected[-1] == (0, 0):
        raise ValueError(
            f"distance maps are {shapes}; expected {expected} of {fusion.image_size}-pixel images"
        )
    _require(finite_images(distances), "its distance maps are not finite")
    *matrices, side_by_side = _fusion_matrices(
        tuple(distance.shape[-1] for distance in distances),
        target=fusion.image_size,
        sigma=fusion.smoothing_sigma,
        window=fusion.pool_size,
    )
    half_done = [  # [B, h, S]
        np.float32(weight) * (distance @ matrix.T)
        for distance, matrix, weight in zip(distances, matrices, fusion.stage_weights, strict=True)
    ]
    # All stages in one product of matrices side by side: one pass over the large result in place of three.
    return np.asarray(side_by_side @ np.concatenate(half_done, axis=1))


def finite_images(maps: list[FloatArray]) -> NDArray[np.bool_]:
    """[B]: whether an image's values, in any number of arrays [B, h, h], are all finite."""
    return np.asarray(np.all([np.isfinite(array).all(axis=(1, 2)) for array in maps], axis=0))


def remove_background(anomaly_map: FloatArray, foreground: NDArray[np.bool_] | None) -> FloatArray:
    """Multiply anomaly maps with the masks of their parts (Section 4.4); without masks they stay as they are.

    Args:
        anomaly_map: [B, S, S] float32.
        foreground: [B, S, S] bool, True on the part, or None.

    Raises:
        ValueError: masks of another shape than the maps', or one that hides its whole image.
    """
    if foreground is None:
        return anomaly_map
    if foreground.shape != anomaly_map.shape:
        raise ValueError(
            f"foreground has shape {list(foreground.shape)}; expected the anomaly map's, {list(anomaly_map.shape)}"
        )
    _require(np.asarray(foreground.any(axis=(1, 2))), "its foreground mask hides all of it")
    return anomaly_map * foreground


def image_scores(anomaly_map: FloatArray, share: float) -> FloatArray:
    """[B]: the mean of the highest `share`, 0..1, of each map's [B, S, S] values; of 0, the paper's, the maximum."""
    values = anomaly_map.reshape(len(anomaly_map), -1)
    n_highest = max(1, round(share * values.shape[1]))
    if n_highest == 1:
        return np.asarray(values.max(axis=1))
    return np.asarray(np.partition(values, -n_highest, axis=1)[:, -n_highest:].mean(axis=1))


def judge(anomaly_map: FloatArray, calibration: Calibration, threshold: float | None = None) -> Verdict:
    """Score anomaly maps and compare with the thresholds.

    Args:
        anomaly_map: [B, S, S] float32.
        calibration: the thresholds.
        threshold: image threshold to use in place of the calibration's.

    Raises:
        ValueError: an image's map is not finite, or the threshold is not.
    """
    if threshold is not None and not _is_number(threshold, -LARGEST, LARGEST):
        raise ValueError(f"image threshold is {threshold}; expected a finite number")
    _require(finite_images([anomaly_map]), "its anomaly map is not finite")
    image_threshold = np.float32(calibration.image_threshold if threshold is None else threshold)
    pred_score = image_scores(anomaly_map, calibration.score_share)[:, None]
    return Verdict(
        anomaly_map=anomaly_map,
        pred_score=pred_score,
        pred_label=pred_score > image_threshold,
        pred_mask=anomaly_map > np.float32(calibration.pixel_threshold),
        threshold=np.full_like(pred_score, image_threshold),
    )


def _require(holds: NDArray[np.bool_], fault: str) -> None:
    """Raise ValueError about the images of a batch, counted from 1, for which something does not hold."""
    if not holds.all():
        images = ", ".join(map(str, np.flatnonzero(~holds)[:10] + 1))
        raise ValueError(f"image {images} of {len(holds)} cannot be judged: {fault}")


def _is_number(value: Any, least: float, most: float, *, kind: type[int] | type[float] = float) -> bool:
    """Whether it is a number within these bounds, where NaN never is; `kind` int takes whole numbers alone."""
    return isinstance(value, (kind, int)) and not isinstance(value, bool) and bool(least <= value <= most)

"""Distance maps in, anomaly map and verdict out: Section 3.4 of the paper, in numpy alone.

The server fuses with this very file and training evaluates with it: what is measured is what is served. It imports
numpy and `fusion_calibration` alone. What is not finite is an error and never a label: NaN exceeds no threshold.

Upsampling, Gaussian blur and average pooling are linear and separable. Their product is one matrix a
stage and side, built once (`fusion_matrix`), and an anomaly map is

    anomaly_map = sum_n  stage_weight_n * A_n @ distance_n @ B_n.T

with A_n for the rows and B_n for the columns, which are the same matrix where the image is a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

if __package__:
    from model_repository.distance_fusion.fusion_calibration import LARGEST as LARGEST
    from model_repository.distance_fusion.fusion_calibration import Calibration as Calibration
    from model_repository.distance_fusion.fusion_calibration import Fusion as Fusion
    from model_repository.distance_fusion.fusion_calibration import fusion_code_id as fusion_code_id
    from model_repository.distance_fusion.fusion_calibration import is_number
    from model_repository.distance_fusion.fusion_calibration import release_id_of as release_id_of
else:  # in the server, where both files lie side by side
    from fusion_calibration import LARGEST, Calibration, Fusion, is_number  # type: ignore[import-not-found, no-redef]
    from fusion_calibration import fusion_code_id as fusion_code_id  # type: ignore[no-redef]
    from fusion_calibration import release_id_of as release_id_of  # type: ignore[no-redef]

FloatArray = NDArray[np.float32]

STRIDES = (4, 8, 16)  # pixels for each position of the three stages' distance maps
# What the server answers, in this order: the fields of `Verdict`, and the release that judged.
VERDICT_OUTPUTS = ("anomaly_map", "pred_score", "pred_label", "pred_mask", "threshold", "release_id")
# Those of an image's size; a request for the score alone leaves them out.
MAP_OUTPUTS = ("anomaly_map", "pred_mask")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the server answers about a batch of B images where no maps are wanted.

    Attributes:
        pred_score: [B, 1] float32; see `image_scores`.
        pred_label: [B, 1] bool; the score exceeds the threshold.
        threshold: [B, 1] float32; the image threshold that was used.
    """

    pred_score: FloatArray
    pred_label: NDArray[np.bool_]
    threshold: FloatArray


@dataclass(frozen=True, kw_only=True)
class Verdict(Scores):
    """What the server answers, for a batch of B images of H x W pixels.

    Attributes:
        anomaly_map: [B, H, W] float32; 0 where student and teacher agree, larger where they do not.
        pred_mask: [B, H, W] bool; the anomaly exceeds the pixel threshold.
    """

    anomaly_map: FloatArray
    pred_mask: NDArray[np.bool_]


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
        distances: one [B, h, w] float32 array a stage, the image's height and width over the stage's stride.
        fusion: image size, smoothing and stage weights.

    Returns:
        [B, H, W] float32, of the image size.

    Raises:
        ValueError: distance maps of another image size or number, or an image's are not finite.
    """
    side_by_side, half_done = _half_fused(distances, fusion)
    # All stages in one product of matrices side by side: one pass over the large result in place of three.
    return np.asarray(side_by_side @ half_done)


def _half_fused(distances: list[FloatArray], fusion: Fusion) -> tuple[FloatArray, FloatArray]:
    """The matrices [H, R] of all stages' rows side by side, and what they are multiplied with, [B, R, W]."""
    height, width = fusion.shape
    expected = [(height // stride, width // stride) for stride in STRIDES]
    if (shapes := [stage.shape[1:] for stage in distances]) != expected or 0 in expected[-1]:
        size = str(height) if height == width else f"{height}x{width}"
        raise ValueError(f"distance maps are {shapes}; expected {expected} of {size}-pixel images")
    _require(finite_images(distances), "its distance maps are not finite")
    *_, side_by_side = _matrices_along(distances, 1, fusion, target=height)
    *matrices, _ = _matrices_along(distances, 2, fusion, target=width)
    half_done = []
    for distance, matrix, weight in zip(distances, matrices, fusion.stage_weights, strict=True):
        n_images, rows, columns = distance.shape
        # One product for the whole batch: numpy would make one of each image.
        product = distance.reshape(-1, columns) @ matrix.T  # [B * h, W]
        half_done.append(np.float32(weight) * product.reshape(n_images, rows, len(matrix)))
    return side_by_side, np.concatenate(half_done, axis=1)


def _matrices_along(
    distances: list[FloatArray], axis: int, fusion: Fusion, *, target: int
) -> tuple[FloatArray, ...]:
    """`_fusion_matrices` of one side of distance maps, axis 1 for their rows and 2 for their columns."""
    sources = tuple(distance.shape[axis] for distance in distances)
    return _fusion_matrices(sources, target=target, sigma=fusion.smoothing_sigma, window=fusion.pool_size)


def finite_images(maps: list[FloatArray]) -> NDArray[np.bool_]:
    """[B]: whether an image's values, in any number of arrays [B, h, w], are all finite."""
    return np.asarray(np.all([np.isfinite(array).all(axis=(1, 2)) for array in maps], axis=0))


def remove_background(anomaly_map: FloatArray, foreground: NDArray[np.bool_] | None) -> FloatArray:
    """Multiply anomaly maps with the masks of their parts (Section 4.4); without masks they stay as they are.

    Args:
        anomaly_map: [B, H, W] float32.
        foreground: [B, H, W] bool, True on the part, or None.

    Raises:
        ValueError: masks of another shape than the maps', or one that hides its whole image.
    """
    _check_foreground(foreground, anomaly_map.shape)
    return anomaly_map if foreground is None else anomaly_map * foreground


def image_scores(anomaly_map: FloatArray, share: float) -> FloatArray:
    """[B]: the mean of the highest `share`, 0..1, of each map's [B, H, W] values; of 0, the paper's, the maximum."""
    values = anomaly_map.reshape(len(anomaly_map), -1)
    n_highest = max(1, round(share * values.shape[1]))
    if n_highest == 1:
        return np.asarray(values.max(axis=1))
    return np.asarray(np.partition(values, -n_highest, axis=1)[:, -n_highest:].mean(axis=1))


def judge(anomaly_map: FloatArray, calibration: Calibration, threshold: float | None = None) -> Verdict:
    """Score anomaly maps and compare with the thresholds.

    Args:
        anomaly_map: [B, H, W] float32.
        calibration: the thresholds.
        threshold: image threshold to use in place of the calibration's.

    Raises:
        ValueError: an image's map is not finite, or the threshold is not.
    """
    image_threshold = _image_threshold(calibration, threshold)
    _require(finite_images([anomaly_map]), "its anomaly map is not finite")
    pred_score = image_scores(anomaly_map, calibration.score_share)[:, None]
    return Verdict(
        anomaly_map=anomaly_map,
        pred_score=pred_score,
        pred_label=pred_score > image_threshold,
        pred_mask=anomaly_map > np.float32(calibration.pixel_threshold),
        threshold=np.full_like(pred_score, image_threshold),
    )


def judge_scores(
    distances: list[FloatArray],
    calibration: Calibration,
    *,
    foreground: NDArray[np.bool_] | None = None,
    threshold: float | None = None,
) -> Scores:
    """Score images whose maps nobody wants: the same scores as from `fuse_distances`, `remove_background`, `judge`.

    Image by image in one buffer, which stays in the processor's cache; a batch of maps would not.

    Raises:
        ValueError: as these three.
    """
    image_threshold = _image_threshold(calibration, threshold)
    side_by_side, half_done = _half_fused(distances, calibration.fusion)
    shape = calibration.fusion.shape
    _check_foreground(foreground, (len(half_done), *shape))
    scores, lowest = np.empty((len(half_done), 1), np.float32), np.empty(len(half_done), np.float32)
    buffer = np.empty((1, *shape), np.float32)
    for index, half in enumerate(half_done):
        np.matmul(side_by_side, half, out=buffer[0])
        if foreground is not None:
            buffer *= foreground[index]
        scores[index], lowest[index] = image_scores(buffer, calibration.score_share), buffer.min()
    # What is not finite in a map is among its highest values or its lowest.
    _require(np.isfinite(scores[:, 0]) & np.isfinite(lowest), "its anomaly map is not finite")
    return Scores(
        pred_score=scores,
        pred_label=scores > image_threshold,
        threshold=np.full_like(scores, image_threshold),
    )


def _image_threshold(calibration: Calibration, threshold: float | None) -> np.float32:
    if threshold is not None and not is_number(threshold, -LARGEST, LARGEST):
        raise ValueError(f"image threshold is {threshold}; expected a finite number")
    return np.float32(calibration.image_threshold if threshold is None else threshold)


def _check_foreground(foreground: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> None:
    if foreground is None:
        return
    if foreground.shape != shape:
        raise ValueError(
            f"foreground has shape {list(foreground.shape)}; expected the anomaly map's, {list(shape)}"
        )
    _require(np.asarray(foreground.any(axis=(1, 2))), "its foreground mask hides all of it")


def _require(holds: NDArray[np.bool_], fault: str) -> None:
    """Raise ValueError about the images of a batch, counted from 1, for which something does not hold."""
    if not holds.all():
        images = ", ".join(map(str, np.flatnonzero(~holds)[:10] + 1))
        raise ValueError(f"image {images} of {len(holds)} cannot be judged: {fault}")

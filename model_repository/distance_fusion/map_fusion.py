"""Distance maps in, anomaly map and verdict out: Section 3.4 of the paper, in numpy alone.

The server fuses with this very file and training evaluates with it: what is measured is what is served. It imports
numpy and the three files beside it alone. What is not finite is an error and never a label: NaN exceeds no threshold.

Upsampling, Gaussian blur and average pooling are linear and separable. Their product is one matrix a
stage and side, built once (`fusion_matrices.py`), and an anomaly map is

    anomaly_map = sum_n  stage_weight_n * A_n @ distance_n @ B_n.T

with A_n for the rows and B_n for the columns, which are the same matrix where the image is a square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

if __package__:
    from model_repository.distance_fusion.fusion_calibration import LARGEST as LARGEST
    from model_repository.distance_fusion.fusion_calibration import Calibration as Calibration
    from model_repository.distance_fusion.fusion_calibration import Fusion as Fusion
    from model_repository.distance_fusion.fusion_calibration import fusion_code_id as fusion_code_id
    from model_repository.distance_fusion.fusion_calibration import is_number
    from model_repository.distance_fusion.fusion_calibration import release_id_of as release_id_of
    from model_repository.distance_fusion.fusion_matrices import STRIDES as STRIDES
    from model_repository.distance_fusion.fusion_matrices import Window, fusion_matrices, windows
    from model_repository.distance_fusion.fusion_matrices import fusion_matrix as fusion_matrix
    from model_repository.distance_fusion.fusion_matrices import gaussian_matrix as gaussian_matrix
    from model_repository.distance_fusion.fusion_matrices import pooling_matrix as pooling_matrix
    from model_repository.distance_fusion.fusion_matrices import upsampling_matrix as upsampling_matrix
    from model_repository.distance_fusion.fusion_regions import Regions, counted_pixels
    from model_repository.distance_fusion.fusion_regions import require_images as _require
else:  # in the server, where the files lie side by side
    from fusion_calibration import LARGEST, Calibration, Fusion, is_number  # type: ignore[import-not-found, no-redef]
    from fusion_calibration import fusion_code_id as fusion_code_id  # type: ignore[no-redef]
    from fusion_calibration import release_id_of as release_id_of  # type: ignore[no-redef]
    from fusion_matrices import STRIDES, Window, fusion_matrices, windows  # type: ignore[import-not-found, no-redef]
    from fusion_regions import Regions, counted_pixels  # type: ignore[import-not-found, no-redef]
    from fusion_regions import require_images as _require  # type: ignore[no-redef]

FloatArray = NDArray[np.float32]

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


def fuse_distances(distances: list[FloatArray], fusion: Fusion) -> FloatArray:
    """Accumulate the stages' distance maps into anomaly maps (Section 3.4).

    Args:
        distances: one [B, h, w] float32 array a stage, the image's height and width over the stage's stride.
        fusion: image size, smoothing and stage weights.

    Returns:
        [B, H, W] float32, of the image size; where images keep their own, of the distances' times the stride.

    Raises:
        ValueError: distance maps of another image size or number, or an image's are not finite.
    """
    pieces = _pieces(map_shape(distances, fusion), fusion)
    _require(finite_images(distances), "its distance maps are not finite")
    if len(pieces) == 1:
        side_by_side, half_done = _half_fused(distances, fusion)
        # All stages in one product of matrices side by side: one pass over the large result in place of three.
        return np.asarray(side_by_side @ half_done)
    maps = np.empty((len(distances[0]), *map_shape(distances, fusion)), distances[0].dtype)
    for rows, columns in pieces:
        side_by_side, half_done = _half_fused(_seen(distances, rows, columns), fusion)
        maps[:, rows.start : rows.stop, columns.start : columns.stop] = (
            side_by_side[rows.kept] @ half_done[..., columns.kept]
        )
    return maps


def map_shape(distances: list[FloatArray], fusion: Fusion) -> tuple[int, int]:
    """Rows and columns of the anomaly maps that distance maps [B, h, w] a stage give.

    Raises:
        ValueError: they are of another image size or number.
    """
    height, width = fusion.shape
    if fusion.is_native and distances:
        height, width = (side * STRIDES[0] for side in distances[0].shape[1:])
    expected = [(height // stride, width // stride) for stride in STRIDES]
    if (shapes := [stage.shape[1:] for stage in distances]) != expected or 0 in expected[-1]:
        size = str(height) if height == width else f"{height}x{width}"
        raise ValueError(f"distance maps are {shapes}; expected {expected} of {size}-pixel images")
    return height, width


def _pieces(shape: tuple[int, int], fusion: Fusion) -> list[tuple[Window, Window]]:
    """Rows and columns of the windows in which maps of a shape are fused."""
    of_rows, of_columns = (
        list(windows(side, sigma=fusion.smoothing_sigma, window=fusion.pool_size)) for side in shape
    )
    return [(rows, columns) for rows in of_rows for columns in of_columns]


def _seen(distances: list[FloatArray], rows: Window, columns: Window) -> list[FloatArray]:
    """What a window is fused from, [B, h, w] a stage."""
    return [
        np.ascontiguousarray(stage[:, rows.positions(stride), columns.positions(stride)])
        for stage, stride in zip(distances, STRIDES, strict=True)
    ]


def _half_fused(distances: list[FloatArray], fusion: Fusion) -> tuple[FloatArray, FloatArray]:
    """The matrices [H, R] of all stages' rows side by side, and what they are multiplied with, [B, R, W]."""
    height, width = (side * STRIDES[-1] for side in distances[-1].shape[1:])
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
    """`fusion_matrices` of one side of distance maps, axis 1 for their rows and 2 for their columns."""
    sources = tuple(distance.shape[axis] for distance in distances)
    return fusion_matrices(sources, target=target, sigma=fusion.smoothing_sigma, window=fusion.pool_size)


def finite_images(maps: list[FloatArray]) -> NDArray[np.bool_]:
    """[B]: whether an image's values, in any number of arrays [B, h, w], are all finite."""
    return np.asarray(np.all([np.isfinite(array).all(axis=(1, 2)) for array in maps], axis=0))


def remove_background(
    anomaly_map: FloatArray, foreground: NDArray[np.bool_] | None, regions: Regions | None = None
) -> FloatArray:
    """Multiply anomaly maps with the masks of their parts (Section 4.4) and of the regions that are inspected.

    Without either they stay as they are. Scores are of as many pixels as without: what is hidden counts as 0.

    Args:
        anomaly_map: [B, H, W] float32.
        foreground: [B, H, W] bool, True on the part, or None.
        regions: of the calibration, or None.

    Raises:
        ValueError: masks or regions for maps of another shape, or nothing is left of an image.
    """
    counted = counted_pixels(foreground, regions, anomaly_map.shape)
    return anomaly_map if counted is None else anomaly_map * counted


def n_scored(n_pixels: int, share: float, pixels: int = 0) -> int:
    """How many of a map's `n_pixels` values, the highest, make its score; see `image_scores`."""
    return min(pixels, n_pixels) if pixels else max(1, round(share * n_pixels))


def image_scores(anomaly_map: FloatArray, share: float, pixels: int = 0) -> FloatArray:
    """[B]: the mean of the highest values of each map [B, H, W].

    Args:
        anomaly_map: of B images.
        share: 0..1, of the map's pixels; of 0, the paper's, the maximum alone.
        pixels: so many whatever the size of the map, in place of a share: for images that keep their own size.
    """
    values = anomaly_map.reshape(len(anomaly_map), -1)
    n_highest = n_scored(values.shape[1], share, pixels)
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
    pred_score = image_scores(anomaly_map, calibration.score_share, calibration.score_pixels)[:, None]
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
    shape = map_shape(distances, calibration.fusion)
    n_images = len(distances[0])
    counted = counted_pixels(foreground, calibration.regions, (n_images, *shape))
    scores, lowest = np.empty((n_images, 1), np.float32), np.empty(n_images, np.float32)
    for index, one in enumerate(_maps_one_by_one(distances, calibration.fusion)):
        if counted is not None:
            one *= counted[index]
        scores[index] = image_scores(one, calibration.score_share, calibration.score_pixels)
        lowest[index] = one.min()
    # What is not finite in a map is among its highest values or its lowest.
    _require(np.isfinite(scores[:, 0]) & np.isfinite(lowest), "its anomaly map is not finite")
    return Scores(
        pred_score=scores,
        pred_label=scores > image_threshold,
        threshold=np.full_like(scores, image_threshold),
    )


def _maps_one_by_one(distances: list[FloatArray], fusion: Fusion) -> Iterator[FloatArray]:
    """The anomaly map [1, H, W] of each image, valid until the next; see `fuse_distances`."""
    shape = map_shape(distances, fusion)
    if len(_pieces(shape, fusion)) > 1:
        for index in range(len(distances[0])):
            yield fuse_distances([stage[index : index + 1] for stage in distances], fusion)
        return
    _require(finite_images(distances), "its distance maps are not finite")
    side_by_side, half_done = _half_fused(distances, fusion)
    buffer = np.empty((1, *shape), np.float32)
    for half in half_done:
        np.matmul(side_by_side, half, out=buffer[0])
        yield buffer


def _image_threshold(calibration: Calibration, threshold: float | None) -> np.float32:
    if threshold is not None and not is_number(threshold, -LARGEST, LARGEST):
        raise ValueError(f"image threshold is {threshold}; expected a finite number")
    return np.float32(calibration.image_threshold if threshold is None else threshold)

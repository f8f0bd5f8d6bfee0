"""A part that lies anywhere, brought to where the reference picture has it: shifted and turned, never scaled.

This is the very file that the server runs and that training, calibration and evaluation run. A small copy of the
picture is compared with the reference at some angles, at each shift (normalised correlation); from the best of them
OpenCV's ECC (Evangelidis and Psarakis, 2008) finds the motion to a fraction of a pixel at the networks' size. What the
aligned picture shows beyond the edge of the one that was taken repeats that edge.

Found are shifts of up to a quarter of the picture in each direction, and turns of up to 45 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

if __package__:
    from model_repository.alignment.reference_picture import Reference
else:  # in the server, where both files lie side by side
    from reference_picture import Reference  # type: ignore[import-not-found, no-redef]

Pixels = NDArray[np.uint8]
Gray = NDArray[np.float32]
Masks = NDArray[np.bool_]
Matrix = NDArray[np.float64]
# [..., 2, 3]: from a pixel (x, y, 1) of the aligned picture to that of the picture as it came.
Motion = NDArray[np.float32]

LARGEST_TURN = 45.0  # degrees, either way
LARGEST_SHIFT = 0.25  # of the picture's height and width
SEARCH_SIDE = 48  # pixels of the longer side of the small copies that are searched through
SEARCH_STEP = 7.5  # degrees between the angles that are tried: ECC finds its way from half of it
CANDIDATES = 3  # of the angles, the best, that are followed on small copies: the nearest is not always the best at once
COARSE_SIDE = 64  # pixels of the longer side of the copies that the candidates are followed on
BLUR = 5  # pixels of the Gaussian window that ECC smooths with
COARSE_STEPS, FINE_STEPS = 30, 40  # iterations at most
PRECISION = 1e-5  # change of the correlation below which an iteration is the last
NOISE_SIGMA = 1.0  # pixels of the blur that takes the camera's noise out of what is compared

OPENCV: str = cv2.__version__

cv2.setNumThreads(1)  # pictures are aligned beside each other, and the server's other steps need the cores


class AlignmentError(ValueError):
    """A picture that cannot be aligned: its part is another, or lies beyond what is searched through."""


@dataclass(frozen=True)
class Aligned:
    """An aligned picture.

    Attributes:
        pixels: [H, W, 3] uint8.
        motion: [2, 3] from its pixels to those of the picture as it came.
        correlation: with the reference where it shows the picture as it came, -1 to 1.
    """

    pixels: Pixels
    motion: Motion
    correlation: float


class Aligner:
    """Aligns pictures to a reference, of which it holds what every picture is compared with."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._smooth = _smoothed(reference.pixels)
        self._coarse = _small(self._smooth, COARSE_SIDE)
        small = _small(self._smooth, SEARCH_SIDE)
        count = math.floor(LARGEST_TURN / SEARCH_STEP)
        angles = [SEARCH_STEP * number for number in range(-count, count + 1)]
        self._turned = [(angle, warp(small, _turn(small, -angle)).astype(np.float32)) for angle in angles]

    def align(self, picture: Pixels) -> Aligned:
        """Bring a picture's part to where the reference has it.

        Args:
            picture: [H, W, 3] uint8, RGB, of the reference's size.

        Raises:
            AlignmentError: its correlation with the reference is too low, however it is shifted and turned.
        """
        aligned, least = self.nearest(picture), self.reference.least_correlation
        if aligned.correlation < least:
            raise AlignmentError(
                f"cannot be aligned: its correlation with the reference picture is {aligned.correlation:.3f} at best, "
                f"and {least:.3f} is expected within shifts of {LARGEST_SHIFT:.0%} of the picture and turns of "
                f"{LARGEST_TURN:.0f} degrees; lay the part as in the good images, and look at the camera"
            )
        return aligned

    def nearest(self, picture: Pixels) -> Aligned:
        """The shift and turn with which a picture [H, W, 3] uint8 comes nearest to the reference, near or not.

        Raises:
            ValueError: it is of another size.
        """
        if picture.shape[:2] != self._smooth.shape:
            (height, width), (rows, columns) = picture.shape[:2], self._smooth.shape
            raise ValueError(
                f"a picture of {height} x {width} pixels cannot be aligned to one of {rows} x {columns}"
            )
        gray = _smoothed(gray_of(picture))
        motion = _follow(self._smooth, gray, self._coarse_motion(gray), FINE_STEPS)
        correlation = _correlation(self._smooth, gray, motion)
        return Aligned(move(picture, motion), motion.astype(np.float32), correlation)

    def _coarse_motion(self, gray: Gray) -> Matrix:
        """A motion near the right one: the best of the candidates of the search, followed on small copies."""
        coarse, best, motion = _small(gray, COARSE_SIDE), -2.0, np.eye(2, 3)
        for candidate in self._search(gray):
            followed = _follow(self._coarse, coarse, _rescaled(candidate, gray, coarse), COARSE_STEPS)
            correlation = _correlation(self._coarse, coarse, followed)
            if correlation > best:
                best, motion = correlation, _rescaled(followed, coarse, gray)
        return motion

    def _search(self, gray: Gray) -> list[Matrix]:
        """Motions of the angles at which a small copy correlates best with the reference, at the best shift of each."""
        small = _small(gray, SEARCH_SIDE)
        height, width = small.shape
        down, across = math.ceil(LARGEST_SHIFT * height), math.ceil(LARGEST_SHIFT * width)
        wide = cv2.copyMakeBorder(small, down, down, across, across, cv2.BORDER_REPLICATE)
        found = []
        for angle, template in self._turned:
            values = cv2.matchTemplate(wide, template, cv2.TM_CCOEFF_NORMED)
            # Of flat pictures the correlation is no number.
            _, value, _, (x, y) = cv2.minMaxLoc(np.nan_to_num(values, nan=-1.0, posinf=-1.0, neginf=-1.0))
            motion = _turn(small, angle)
            motion[:, 2] += x - across, y - down
            found.append((value, _rescaled(motion, small, gray)))
        return [motion for _, motion in sorted(found, key=lambda pair: -pair[0])[:CANDIDATES]]


def gray_of(picture: Pixels) -> Pixels:
    """[H, W] uint8 of an RGB picture [H, W, 3]."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY))


def move(picture: Pixels, motion: NDArray[Any]) -> Pixels:
    """The aligned picture [H, W, 3] uint8 of one as it came; beyond its edge that edge is repeated."""
    return np.asarray(warp(np.ascontiguousarray(picture), motion, cv2.INTER_CUBIC))


def move_masks(masks: Masks, motions: Motion) -> Masks:
    """Masks [N, H, W] of pictures as they came, in the aligned ones; False beyond their edge."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return _each(masks, motions, lambda mask, motion: _warp_flat(mask.astype(np.uint8), motion, flags) > 0)


def restore_masks(masks: Masks, motions: Motion) -> Masks:
    """Masks [N, H, W] of aligned pictures, in the pictures as they came; False where the aligned ones do not reach."""
    nearest = cv2.INTER_NEAREST
    return _each(masks, motions, lambda mask, motion: _warp_flat(mask.astype(np.uint8), motion, nearest) > 0)


def restore_maps(maps: Gray, motions: Motion) -> Gray:
    """Anomaly maps [N, H, W] of aligned pictures, in the pictures as they came; 0 where the aligned ones do not reach.

    The highest value of each stays: between pixels it would be lost, and the score is the mean of the highest.
    """
    return _each(maps, motions, _restored)


def _restored(anomaly_map: Gray, motion: Motion) -> Gray:
    restored = _warp_flat(np.ascontiguousarray(anomaly_map, np.float32), motion, cv2.INTER_LINEAR)
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    across, down = (motion.astype(np.float64) @ np.array([column, row, 1.0])).tolist()
    height, width = anomaly_map.shape
    at = round(min(max(down, 0.0), height - 1.0)), round(min(max(across, 0.0), width - 1.0))
    restored[at] = max(restored[at], anomaly_map[row, column])
    return restored


def _each(values: NDArray[Any], motions: Motion, change: Callable[[Any, Any], NDArray[Any]]) -> NDArray[Any]:
    """A function of each of N arrays and its motion."""
    changed = np.empty_like(values)
    for index, (one, motion) in enumerate(zip(values, motions, strict=True)):
        changed[index] = change(one, motion)
    return changed


def _follow(reference: Gray, gray: Gray, motion: Matrix, steps: int) -> Matrix:
    """The motion that ECC finds from one nearby; that one where it finds none, or leaves what is searched through."""
    ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, PRECISION)
    start = motion.astype(np.float32)
    try:
        _, found = cv2.findTransformECC(
            reference,
            gray,
            start.copy(),
            cv2.MOTION_EUCLIDEAN,
            ends,
            np.full(gray.shape, 255, np.uint8),
            BLUR,
        )
    except cv2.error:  # it does not converge: both are flat, or have nothing in common
        return motion
    return found.astype(np.float64) if _is_within(found, gray.shape) else motion


def _is_within(motion: NDArray[Any], shape: tuple[int, int]) -> bool:
    """Whether a motion is a little more than what is searched through, at most."""
    if not np.isfinite(motion).all():
        return False
    height, width = shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2, 1.0])
    shift = np.abs(motion @ centre - centre[:2]) / (width, height)
    turn = math.degrees(math.atan2(motion[1, 0], motion[0, 0]))
    return bool((shift <= LARGEST_SHIFT + 0.1).all() and abs(turn) <= LARGEST_TURN + SEARCH_STEP)


def _correlation(reference: Gray, gray: Gray, motion: NDArray[Any]) -> float:
    """Pearson's, of the reference and a picture moved to it, where that shows something; 0 where one is flat."""
    shown = _warp_flat(np.ones(gray.shape, np.uint8), motion, cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    if not shown.any():
        return 0.0
    first, second = (values[shown].astype(np.float64) for values in (reference, warp(gray, motion)))
    first, second = first - first.mean(), second - second.mean()
    # Sums, not products of vectors: for these BLAS would start threads, which the server's other steps need.
    scale = math.sqrt(float((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / scale if scale > 1e-9 else 0.0


def turn_of(motion: Motion, shape: tuple[int, ...]) -> tuple[float, float]:
    """How far a motion shifts the middle of a picture [H, W], in pixels, and turns it, in degrees."""
    height, width = shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = motion[:, :2].astype(np.float64) @ middle + motion[:, 2]
    turn = math.degrees(math.atan2(motion[1, 0], motion[0, 0]))
    return float(np.linalg.norm(moved - middle)), turn


def _turn(picture: Gray, degrees: float) -> Matrix:
    """[2, 3]: about the picture's centre."""
    height, width = picture.shape
    across, down = (width - 1) / 2, (height - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        [[cos, -sin, across - cos * across + sin * down], [sin, cos, down - sin * across - cos * down]]
    )


def _rescaled(motion: Matrix, of: Gray, to: Gray) -> Matrix:
    """The motion between pictures of one size, between the same pictures of another."""
    scale = np.array([to.shape[1] / of.shape[1], to.shape[0] / of.shape[0]])
    rescaled = motion.copy()
    # Centres of pixels: 0 is half a pixel from the edge, whatever the size.
    rescaled[:, 2] = scale * (motion[:, :2] @ (0.5 / scale - 0.5) + motion[:, 2] + 0.5) - 0.5
    return rescaled


def _smoothed(gray: Pixels) -> Gray:
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), NOISE_SIGMA))


def _small(gray: Gray, side: int) -> Gray:
    """A copy whose longer side has so many pixels, or the picture itself where it is no larger."""
    height, width = gray.shape
    scale = side / max(height, width)
    if scale >= 1:
        return gray
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA))


def warp(picture: NDArray[Any], motion: NDArray[Any], interpolation: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """A picture moved by a motion, its edge repeated beyond it."""
    height, width = picture.shape[:2]
    return np.asarray(
        cv2.warpAffine(
            picture,
            motion.astype(np.float64),
            (width, height),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def _warp_flat(values: NDArray[Any], motion: NDArray[Any], flags: int) -> NDArray[Any]:
    """Values [H, W] moved there or back, with 0 beyond the edge."""
    height, width = values.shape
    return np.asarray(cv2.warpAffine(values, motion.astype(np.float64), (width, height), flags=flags))

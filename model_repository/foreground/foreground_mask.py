"""Where the part lies in its picture: the `threshold` method of background removal (Section 4.4), in numpy alone.

This is the very file that the server runs and that calibration and evaluation run. What differs from the
colour of the picture's border is the part; specks beside it are dropped, it is widened a little, and its holes
are filled. Where that finds no part, the whole picture counts as the part: a defect is never hidden on a guess.

Otsu's threshold would be the usual choice. It splits off whatever stands out most: of a pale part with a
black stain it keeps the stain alone. So the threshold follows from the background itself.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
AnyNumber = TypeVar("AnyNumber", np.bool_, np.uint8, np.int32)

BORDER_SHARE = 32  # the border is 1/32 of the shorter side wide
MARGIN_SHARE = 64  # the part is widened by 1/64 of the shorter side: defects at its rim stay inside
BACKGROUND_QUANTILE = 0.9  # of the border; a part that touches more of it cannot be told from the background
NOISE_FACTOR = 2  # times that quantile is still background
SMALLEST_CONTRAST = 20  # grey levels of 255
SMALLEST_PART = 0.02  # of the picture; less is no part, but perhaps a defect on a texture
SMALLEST_PIECE = 0.05  # of the largest piece; less is a speck


def foreground_mask(image: NDArray[np.uint8]) -> Mask:
    """Find the part in each picture.

    Args:
        image: [B, H, W, 3] uint8, RGB.

    Returns:
        [B, H, W] bool, True on the part; all True in a picture where none is found.
    """
    contrast = background_contrast(image)
    pieces = remove_specks(contrast > contrast_threshold(contrast))
    part = fill_holes(widen(pieces, min(image.shape[1:3]) // MARGIN_SHARE))
    found = part.mean(axis=(1, 2)) >= SMALLEST_PART
    return np.asarray(part | ~found[:, None, None])


def background_contrast(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How far each pixel [B, H, W] is from the border's median colour: the largest difference of a channel."""
    background = np.median(_border(image), axis=1).astype(np.uint8)[:, None, None]
    return np.asarray((np.maximum(image, background) - np.minimum(image, background)).max(axis=3))


def contrast_threshold(contrast: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What a pixel [B, 1, 1] must exceed to be no background: some times the contrast within the border."""
    noise = np.quantile(_border(contrast), BACKGROUND_QUANTILE, axis=1)
    return np.maximum(SMALLEST_CONTRAST, NOISE_FACTOR * noise)[:, None, None]


def fill_holes(mask: Mask) -> Mask:
    """Add everything that the picture's border cannot reach from outside."""
    regions = label_regions(mask)
    outside = np.zeros(mask.size, bool)
    outside[_border(regions)[~_border(mask)]] = True
    return ~outside[regions] | mask


def remove_specks(mask: Mask) -> Mask:
    """Drop pieces that are small beside the picture's largest."""
    pixels = label_regions(mask)[mask]
    area = np.bincount(pixels, minlength=mask.size).reshape(len(mask), -1)  # at each piece's first pixel
    kept = (area >= SMALLEST_PIECE * area.max(axis=1, keepdims=True)).ravel()
    result = np.zeros_like(mask)
    result[mask] = kept[pixels]
    return result


def label_regions(mask: Mask) -> Labels:
    """Number the regions of equal value, joined along sides, by their first pixel's position in the batch.

    Each run of equal pixels in a row takes the smallest number in it, then each in a column, and each pixel the
    number of the pixel that its number names, until nothing changes.
    """
    batch, height, width = mask.shape
    across, down = _run_starts(mask), _run_starts(mask.transpose(0, 2, 1))
    labels: Labels = np.arange(mask.size, dtype=np.int32)
    while True:
        rows = _smallest_of_runs(labels, across)
        columns = rows.reshape(batch, height, width).transpose(0, 2, 1).ravel()
        columns = _smallest_of_runs(columns, down)
        joined = columns.reshape(batch, width, height).transpose(0, 2, 1).ravel()
        if np.array_equal(joined, labels):
            return labels.reshape(mask.shape)
        labels = joined[joined]


def widen(mask: Mask, radius: int) -> Mask:
    """Dilate [B, H, W] by a square of 2 * radius + 1 pixels."""
    wide = mask.copy()
    for shift in range(1, radius + 1):
        wide[:, shift:] |= mask[:, :-shift]
        wide[:, :-shift] |= mask[:, shift:]
    wider = wide.copy()
    for shift in range(1, radius + 1):
        wider[:, :, shift:] |= wide[:, :, :-shift]
        wider[:, :, :-shift] |= wide[:, :, shift:]
    return wider


def _border(image: NDArray[AnyNumber]) -> NDArray[AnyNumber]:
    """The pixels [B, N, ...] of a frame around the picture, in the same order for every array."""
    width = max(1, min(image.shape[1:3]) // BORDER_SHARE)
    rest = (len(image), -1, *image.shape[3:])
    sides = (
        image[:, :width], image[:, -width:], image[:, width:-width, :width], image[:, width:-width, -width:],
    )  # fmt: skip
    return np.concatenate([side.reshape(rest) for side in sides], axis=1)


def _run_starts(mask: Mask) -> NDArray[np.intp]:
    """Flat positions at which a run of equal pixels starts; one starts with every row."""
    starts = np.ones(mask.shape, bool)
    np.not_equal(mask[..., 1:], mask[..., :-1], out=starts[..., 1:])
    return np.flatnonzero(starts)


def _smallest_of_runs(labels: Labels, starts: NDArray[np.intp]) -> Labels:
    """Give every pixel the smallest number of its run."""
    lengths = np.diff(starts, append=len(labels))
    return np.repeat(np.minimum.reduceat(labels, starts), lengths)

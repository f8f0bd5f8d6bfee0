"""Pictures that a line operator reads: the image, and the anomaly map over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from client.core.verdicts import Verdict

PANEL = 320  # pixels, the longer side of each of the two panels
CAPTION = 30  # pixels, the strip above them
OPACITY = 0.55
FULL_SCALE = 1.5  # thresholds; where the colours end, the same on every picture
SMALLEST_SCALE = 1e-6  # a threshold of 0 can be asked for
# Dark violet, red, orange, pale yellow: brighter is more anomalous, also for the colour-blind.
COLOUR_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)
GOOD_COLOUR, ANOMALOUS_COLOUR, CONTOUR_COLOUR = (42, 127, 98), (200, 60, 50), (0, 255, 255)


def draw_overlay(image: Image.Image, verdict: Verdict, *, synthetic: bool = False) -> Image.Image:
    """The image beside itself under its anomaly map, the threshold's contour drawn in cyan.

    Args:
        image: RGB, any size; shown in the shape that the server sees.
        verdict: its verdict.
        synthetic: say that the judge was trained on rendered images.

    Returns:
        RGB, [CAPTION + PANEL, 2 * PANEL] of a square; less high of what lies, and none less wide.
    """
    rows, columns = verdict.anomaly_map.shape
    height, width = (max(1, round(PANEL * side / max(rows, columns))) for side in (rows, columns))
    plain = image.resize((width, height), Image.Resampling.BILINEAR)
    picture = Image.new("RGB", (2 * PANEL, CAPTION + height), colour_of(verdict))
    picture.paste(plain, (0, CAPTION))
    picture.paste(blend(plain, verdict), (PANEL, CAPTION))
    text = caption(verdict, synthetic=synthetic)
    ImageDraw.Draw(picture).text((8, 7), text, fill="white", font=ImageFont.load_default(size=14))
    return picture


def blend(image: Image.Image, verdict: Verdict) -> Image.Image:
    """An image, RGB and of any size, under its anomaly map, the threshold's contour drawn in cyan."""
    enlarged = Image.fromarray(verdict.anomaly_map).resize(image.size, Image.Resampling.BILINEAR)
    anomaly = np.asarray(enlarged, np.float32)
    heat = colourise(anomaly / max(FULL_SCALE * verdict.threshold, SMALLEST_SCALE))
    blended = (1 - OPACITY) * np.asarray(image, np.float32) + OPACITY * heat
    blended[_contour(anomaly > verdict.threshold)] = CONTOUR_COLOUR
    return Image.fromarray(blended.astype(np.uint8))


def caption(verdict: Verdict, *, synthetic: bool) -> str:
    """The verdict in a line."""
    return (
        f"{'ANOMALOUS' if verdict.anomalous else 'good'}   score {verdict.score:.3f}   "
        f"threshold {verdict.threshold:.3f}   release {verdict.release_id}"
        f"{'   SYNTHETIC DATA' if synthetic else ''}"
    )


def colour_of(verdict: Verdict) -> tuple[int, int, int]:
    """What a verdict is drawn on."""
    return ANOMALOUS_COLOUR if verdict.anomalous else GOOD_COLOUR


def colourise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours [H, W, 3] in 0..255 of values [H, W], of which 0..1 is shown."""
    stops = np.linspace(0, 1, len(COLOUR_STOPS))
    channels = [np.interp(values, stops, channel) for channel in COLOUR_STOPS.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def _contour(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a region that touch its outside."""
    padded = np.pad(region, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner

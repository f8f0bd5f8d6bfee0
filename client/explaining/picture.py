"""An explanation as one picture: the image, its anomaly map over it, and the three distance maps with their scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from client.console import printable
from client.explaining.explanation import Explanation, Stage
from client.explaining.usual import Spread
from client.pictures.overlays import blend, caption, colour_of, colourise

SIDE = 320  # pixels, of the box for each distance map
GAP = 16
WIDTH = 3 * SIDE + 4 * GAP
LARGE = (WIDTH - 3 * GAP) // 2  # of the boxes for image and overlay
BAND = 62  # above all, with the verdict
LINE = 20
SCALE = 12  # height of the bar that says which colour is which distance
BACKGROUND, TEXT, FRAME, MARK = "white", (34, 34, 34), (0, 255, 255), (255, 255, 255)
CROSS = 9  # pixels from its middle to an end


def draw_explanation(explanation: Explanation, image: Image.Image) -> Image.Image:
    """The picture; `image` is the original, RGB."""
    large, small = _fit(image.size, LARGE), _fit(image.size, SIDE)
    stages_top = BAND + GAP + LINE + large[1] + GAP
    footer_top = stages_top + 2 * LINE + small[1] + 4 + SCALE + LINE + GAP
    picture = Image.new("RGB", (WIDTH, footer_top + 3 * LINE + GAP // 2), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _draw_band(draw, explanation)
    plain = image.resize(large, Image.Resampling.BILINEAR)
    maximum, (width, height) = explanation.maximum, explanation.verdict.original_size
    title = (
        f"image, {width} x {height} pixels; frames: defects; cross: the maximum, at {maximum.x}, {maximum.y}"
    )
    _write(draw, GAP, BAND + GAP // 2, title)
    _write(draw, LARGE + 2 * GAP, BAND + GAP // 2, "anomaly map over it; cyan: the threshold")
    overlay = blend(plain, explanation.verdict)
    _mark(plain, explanation)
    picture.paste(plain, (GAP, BAND + GAP + LINE))
    picture.paste(overlay, (LARGE + 2 * GAP, BAND + GAP + LINE))
    for index, stage in enumerate(explanation.stages):
        usual = explanation.usual.stages[index] if explanation.usual else None
        _draw_stage(picture, stage, usual, left=GAP + index * (SIDE + GAP), top=stages_top, size=small)
    for number, text in enumerate(summary(explanation)):
        _write(draw, GAP, footer_top + number * LINE, text)
    return picture


def summary(explanation: Explanation) -> list[str]:
    """Sentences below the maps: what the score is the mean of, and what good images give."""
    many = explanation.n_score_pixels
    mean = "the highest value" if many == 1 else f"the mean of the {many} highest values"
    size = " x ".join(map(str, explanation.verdict.anomaly_map.shape))
    sentences = [
        f"The score is {mean} of the anomaly map, {size}, which is the sum of the three stages' maps, smoothed and "
        "weighted."
    ]
    usual = explanation.usual
    if usual is None:
        return [
            *sentences,
            "The release does not say what good images give: it was trained before that was kept.",
        ]
    score = usual.score
    return [
        *sentences,
        f"{usual.n_images} good images held out from training had scores from {score.least:.3f} to {score.most:.3f}, "
        f"9 of 10 from {score.low:.3f} to {score.high:.3f}; the median was {score.median:.3f}.",
    ]


def usual_range(spread: Spread) -> str:
    """Where 9 of 10 good images lie."""
    return f"{spread.low:.3f} to {spread.high:.3f}"


def _draw_band(draw: ImageDraw.ImageDraw, explanation: Explanation) -> None:
    verdict = explanation.verdict
    draw.rectangle((0, 0, WIDTH, BAND), fill=colour_of(verdict))
    _write(draw, GAP, 8, caption(verdict, synthetic=explanation.synthetic), fill="white", size=18)
    name = printable(str(Path(explanation.image)))
    _write(draw, GAP, 36, f"{explanation.category}: {name}", fill="white", width=WIDTH - 2 * GAP)


def _draw_stage(
    picture: Image.Image, stage: Stage, usual: Spread | None, *, left: int, top: int, size: tuple[int, int]
) -> None:
    draw = ImageDraw.Draw(picture)
    share = f"stage {stage.number}: {100 * stage.share:.1f} % of the score, {stage.contribution:.3f}"
    _write(draw, left, top, share, size=16)
    if usual is not None:
        _write(draw, left, top + LINE, f"good images: {usual_range(usual)}")
    most = float(stage.distances.max())
    colours = colourise(stage.distances / most if most else stage.distances)
    drawn = Image.fromarray(colours.astype(np.uint8))
    map_top = top + 2 * LINE
    picture.paste(drawn.resize(size, Image.Resampling.NEAREST), (left, map_top))
    ramp = np.tile(np.linspace(0, 1, size[0], dtype=np.float32), (SCALE, 1))
    scale_top = map_top + size[1] + 4
    picture.paste(Image.fromarray(colourise(ramp).astype(np.uint8)), (left, scale_top))
    rows, columns = stage.distances.shape
    _write(draw, left, scale_top + SCALE + 2, f"distance 0 to {most:.3g}; {rows} x {columns}")


def _mark(plain: Image.Image, explanation: Explanation) -> None:
    """Frame the defects and cross the maximum, on the image at its size in the picture."""
    width, height = explanation.verdict.original_size
    x_scale, y_scale = plain.width / width, plain.height / height
    draw = ImageDraw.Draw(plain)
    for defect in explanation.verdict.defects:
        right, bottom = defect.left + defect.width, defect.top + defect.height
        box = (defect.left * x_scale, defect.top * y_scale, right * x_scale, bottom * y_scale)
        draw.rectangle(box, outline=FRAME)
    x, y = (explanation.maximum.x + 0.5) * x_scale, (explanation.maximum.y + 0.5) * y_scale
    for colour, thickness in ((TEXT, 4), (MARK, 2)):
        draw.line((x - CROSS, y, x + CROSS, y), fill=colour, width=thickness)
        draw.line((x, y - CROSS, x, y + CROSS), fill=colour, width=thickness)


def _write(
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
    text: str,
    *,
    fill: str | tuple[int, int, int] = TEXT,
    size: int = 14,
    width: int | None = None,
) -> None:
    """A line of text, its beginning left out where it is longer than `width` pixels."""
    font = ImageFont.load_default(size=size)
    while width is not None and len(text) > 1 and draw.textlength(text, font=font) > width:
        text = f"…{text[2:]}" if text.startswith("…") else f"…{text[1:]}"
    draw.text((x, y), text, fill=fill, font=font)


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The largest size of this shape that a square of `side` pixels holds."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

"""Small pictures that lie in the page itself, so that one file is all of it."""

from __future__ import annotations

import base64
import heapq
import io
import os
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

from client.core.errors import ImageFileError
from client.pictures.images import load_image
from client.pictures.overlays import CAPTION, PANEL
from client.predictions.prediction import Prediction

MOST = 1000  # of the most anomalous images: a page of 10,000 is to open at once
HEIGHT = 112  # pixels
QUALITY = 80  # of JPEG
BOX_COLOUR = (0, 255, 255)


class Thumbnails:
    """Collects the small pictures of the most anomalous images of a run, while it goes on."""

    def __init__(self, most: int = MOST) -> None:
        """Keep those of up to `most` images."""
        self._most = most
        self._kept: list[tuple[float, int, str, str]] = []  # a heap, the least anomalous first
        self._count = 0

    def add(self, prediction: Prediction, draw: Callable[[], Image.Image]) -> None:
        """Draw and keep the picture of an answer, any size, RGB, unless enough images are more anomalous."""
        if len(self._kept) == self._most and prediction.score <= self._kept[0][0]:
            return
        self._count += 1
        entry = (prediction.score, -self._count, prediction.image, data_uri(_small(draw())))
        if len(self._kept) == self._most:
            heapq.heapreplace(self._kept, entry)
        else:
            heapq.heappush(self._kept, entry)

    def by_image(self) -> dict[str, str]:
        """The pictures as data URIs, by the image's path."""
        return {image: uri for _, _, image, uri in self._kept}


def thumbnails_of(predictions: Sequence[Prediction], *, most: int = MOST) -> dict[str, str]:
    """Small pictures of the most anomalous images, of what still lies where it lay; by the image's path.

    The overlay is shown, or the image itself with its defects framed.
    """
    thumbnails = Thumbnails(most)
    for entry in sorted(predictions, key=lambda entry: -entry.score)[:most]:
        if picture := read_overlay(entry) or _framed(entry):
            thumbnails.add(entry, picture.copy)
    return thumbnails.by_image()


def read_overlay(entry: Prediction) -> Image.Image | None:
    """The picture that was drawn of an answer, RGB; None where there is none any more."""
    try:
        if entry.overlay is None:
            return None
        with Image.open(entry.overlay) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def without_caption(picture: Image.Image) -> Image.Image:
    """The two panels of an overlay; another picture stays as it is."""
    if picture.width != 2 * PANEL or not CAPTION < picture.height <= CAPTION + PANEL:
        return picture
    return picture.crop((0, CAPTION, picture.width, picture.height))


def data_uri(picture: Image.Image) -> str:
    """A picture as a JPEG that stands in the page."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _small(picture: Image.Image) -> Image.Image:
    panels = without_caption(picture)
    width = max(1, min(4 * HEIGHT, round(panels.width * HEIGHT / panels.height)))
    return panels.resize((width, HEIGHT), Image.Resampling.BILINEAR)


def _framed(entry: Prediction) -> Image.Image | None:
    """The image with its defects framed; None where it is not there any more."""
    if not os.path.isfile(entry.image):  # noqa: PTH113 (a path's own raises where it may not look)
        return None
    try:
        image = load_image(entry.image)
    except ImageFileError:
        return None
    size = image.size
    image.thumbnail((4 * HEIGHT, 4 * HEIGHT))
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    draw = ImageDraw.Draw(image)
    for defect in entry.defects or ():
        right, bottom = defect.left + defect.width, defect.top + defect.height
        box = (defect.left * scale_x, defect.top * scale_y, right * scale_x, bottom * scale_y)
        draw.rectangle(box, outline=BOX_COLOUR, width=4)
    return image

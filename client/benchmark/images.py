"""The images that a benchmark sends: real ones, as pixels and as JPEG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.core.errors import ImageFileError
from client.pictures.folders import find_images
from client.pictures.images import load_image
from model_repository.image_decoder.image_decoding import resize_image
from model_repository.image_size import NATIVE, ImageSize

MAX_IMAGES = 16  # sent in turn
MAX_BYTES = 64_000_000  # of all of them, where they are large
JPEG_SIZE = 1024
JPEG_QUALITY = 90


def load_pixels(
    folder: Path, *, image_size: ImageSize, bit_depth: int = 8, keep_aspect: bool = False
) -> NDArray[np.uint8]:
    """Resized images [N, H, W, 3], up to MAX_IMAGES spread over a folder; those that cannot be read are left out.

    Images that keep their own size are fewer where they are large, and all of one size, that of the first.

    Raises:
        ImageFileError: there are none, or none can be read.
    """
    files = find_images([folder]).images
    n_sent = min(len(files), MAX_IMAGES)
    native = image_size == NATIVE
    pixels: list[NDArray[np.uint8]] = []
    faults = []
    for index in range(n_sent):
        try:
            image = load_image(files[index * len(files) // n_sent].path, bit_depth=bit_depth)
            resized = resize_image(image, image_size, keep_aspect=keep_aspect)
            if (
                native
                and pixels
                and (resized.shape != pixels[0].shape or len(pixels) * resized.size > MAX_BYTES)
            ):
                continue
            pixels.append(resized)
        except ImageFileError as error:
            faults.append(error)
    if not pixels:
        raise faults[0]
    return np.stack(pixels)


def as_jpeg(image: NDArray[np.uint8], *, own_size: bool = False) -> bytes:
    """An image [H, W, 3] as a JPEG file of a camera's size, and of its own shape; or of its own size."""
    buffer, picture = io.BytesIO(), Image.fromarray(image)
    if not own_size:
        width, height = (JPEG_SIZE * side // max(picture.size) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()

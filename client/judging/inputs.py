"""The images that can be asked about, whatever form they have, as what is sent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from client.judging.errors import ClientError, ImageFileError, RequestError
from model_repository.image_decoder import image_decoding

# A Pillow image of any mode; an image file's bytes, for the server to decode; an image file's path, decoded here; or an
# array: [H, W] or RGB [H, W, 3] of 8 bits or of the category's bit depth, or RGBA [H, W, 4] uint8.
Picture = Image.Image | bytes | bytearray | memoryview | str | os.PathLike[str] | NDArray[Any]
Prepared = Image.Image | bytes  # upright 8-bit RGB of any size, or an image file for the server to decode

KINDS = "a Pillow image, an image file's bytes or path, or a numpy array"
UPRIGHT = 1  # EXIF's orientation of an image that is stored as it is seen
ARRAYS = "[H, W] or RGB [H, W, 3] of unsigned integers or floating-point numbers, or RGBA [H, W, 4] of uint8"


def prepare(image: Any, *, bit_depth: int = 8, name: str = "The image") -> Prepared:
    """An image as it is sent: bytes stay as they are, everything else becomes upright 8-bit RGB as in training.

    Args:
        image: see `Picture`.
        bit_depth: white of images with more than 8 bits a channel is 2**bit_depth - 1, see `JudgeClient.bit_depth`.
        name: of the image, for errors; a path's is the path.

    Raises:
        ImageFileError: another kind of value, an array of another shape or type, or pixels that cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    try:
        if isinstance(image, str | os.PathLike):
            return image_decoding.read_image(Path(image), bit_depth=bit_depth)
        if isinstance(image, np.ndarray):
            return image_decoding.to_rgb(_from_array(image), bit_depth=bit_depth)
        if isinstance(image, Image.Image):
            return image_decoding.to_rgb(_upright(image), bit_depth=bit_depth)
    except image_decoding.ImageError as error:
        text = str(error)
        raise ImageFileError(
            f"{text if isinstance(image, str | os.PathLike) else f'{name} {text}'}."
        ) from None
    raise ImageFileError(f"{name} is of type {type(image).__name__}; expected {KINDS}.")


def batches(
    images: Iterable[Any], size: int, prepare_one: Callable[[Any, str], Prepared]
) -> Iterator[list[Prepared]]:
    """Images in their order, up to `size` together; files and pixels never together, for they go to two models.

    What was read before an error is given before it is raised.

    Args:
        images: see `Picture`.
        size: images that may go together.
        prepare_one: `prepare`, given an image and its name.

    Raises:
        ImageFileError: see `prepare`; the error names the image's index.
    """
    batch: list[Prepared] = []
    try:
        for index, image in enumerate(images):
            prepared = prepare_one(image, f"Image {index} (counted from 0)")
            if batch and isinstance(prepared, bytes) != isinstance(batch[0], bytes):
                yield batch
                batch = []
            batch.append(prepared)
            if len(batch) == size:
                yield batch
                batch = []
    except ClientError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def check_many(images: Any) -> Iterator[Any]:
    """Several images; one alone would be taken apart into its letters, bytes or rows.

    Raises:
        RequestError: it is one image, or nothing that can be gone through.
    """
    one = isinstance(images, Image.Image | bytes | bytearray | memoryview | str | os.PathLike)
    if not one and not (isinstance(images, np.ndarray) and images.ndim < 4):
        with contextlib.suppress(TypeError):
            return iter(images)
    raise RequestError(
        f"Several images were expected, e.g. in a list, and one {type(images).__name__} was given; ask about a single "
        "image with `predict` or `score`."
    )


def _from_array(pixels: NDArray[Any]) -> Image.Image | image_decoding.DeepPixels:
    values = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    channels = values.shape[2] if values.ndim == 3 else values.ndim == 2
    known = channels in (1, 3) or (channels == 4 and pixels.dtype == np.uint8)
    if pixels.dtype.kind not in "uif" or not known:
        raise image_decoding.ImageError(
            f"is an array {list(pixels.shape)} of {pixels.dtype}; expected {ARRAYS}"
        )
    if 0 in values.shape:
        raise image_decoding.ImageError(f"is an array {list(pixels.shape)} without pixels")
    if pixels.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(values))
    return image_decoding.DeepPixels(values)


def _upright(image: Image.Image) -> Image.Image:
    """An image that is open, loaded and turned upright."""
    if 0 in image.size:
        raise image_decoding.ImageError(f"has no pixels ({image.width} x {image.height})")
    with image_decoding.naming_damage():
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
        return ImageOps.exif_transpose(image) if turned else image  # which would copy it anyway

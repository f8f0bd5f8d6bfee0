"""The images that can be asked about, whatever form they have, as what is sent."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from client.core.errors import BitDepthError, ImageFileError, ImageTypeError, RequestError
from model_repository.image_decoder import image_decoding
from model_repository.image_decoder.image_decoding import DeepPixels, ImageError

# A Pillow image of any mode; an image file's bytes, for the server to decode; an image file's path, decoded here; or an
# array: uint8 [H, W], RGB [H, W, 3] or RGBA [H, W, 4], or deeper grey or RGB of the category's bit depth.
Picture = Image.Image | bytes | bytearray | memoryview | str | os.PathLike[str] | NDArray[Any]

KINDS = "an image file's path or bytes, a Pillow image, or a numpy array: uint8 [H, W], RGB [H, W, 3] or RGBA [H, W, 4]"
FILE = "filename"  # in the info of a Pillow image that `load_image` has read
LOADING = tuple(threading.Lock() for _ in range(16))  # of images, each of which always takes the same one
ID_STEP = 64  # bytes between objects, roughly
UPRIGHT = 1  # EXIF's orientation of an image that is stored as it is seen


class FileContent(bytes):
    """An image file's bytes, which know the file.

    Attributes:
        filename: its path.
    """

    filename: str = ""


@dataclass(frozen=True)
class Prepared:
    """An image as it is sent.

    Attributes:
        sent: upright 8-bit RGB of any size, a Pillow image or [H, W, 3]; or an image file for the server to decode.
        bit_depth: that it was read with.
        reread: gives it as read with another bit depth; None where that makes no difference.
        name: of its file, where one is known.
    """

    sent: Image.Image | NDArray[np.uint8] | bytes
    bit_depth: int = 8
    reread: Callable[[int], Prepared] | None = None
    name: str = ""

    def fits(self, bit_depth: int) -> bool:
        """Whether it is what reading it with this bit depth gives."""
        return self.reread is None or self.bit_depth == bit_depth

    def at(self, bit_depth: int) -> Prepared:
        """The image as read with a bit depth.

        Raises:
            ImageFileError: it is brighter than that allows.
        """
        if self.reread is None or self.bit_depth == bit_depth:
            return self
        return replace(self.reread(bit_depth), name=self.name)

    @property
    def is_file(self) -> bool:
        """Whether the server decodes it."""
        return isinstance(self.sent, bytes)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height; None of a file, which the server decodes."""
        if isinstance(self.sent, np.ndarray):
            height, width = self.sent.shape[:2]
            return width, height
        return None if isinstance(self.sent, bytes) else self.sent.size


def prepare(image: Any, *, bit_depth: int = 8, name: str = "The image", own: bool = False) -> Prepared:
    """An image that is no path, as it is sent: bytes as they are, all else as upright 8-bit RGB, as in training.

    Args:
        image: see `Picture`.
        bit_depth: white of images with more than 8 bits a channel is 2**bit_depth - 1, see `JudgeClient.bit_depth`.
        name: of the image, for errors.
        own: nobody else is to hold its pixels, for it may be sent again, long after who gave it has drawn on it.

    Raises:
        ImageTypeError: another kind of value, or an array of another type or shape.
        ImageFileError: pixels that cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return Prepared(_file_bytes(image, name), name=file_of(image))
    if not isinstance(image, np.ndarray | Image.Image):
        raise ImageTypeError(f"{name} is of type {_kind_of(image)}; expected {KINDS}.")
    with naming(name):
        pixels = _pixels_of(image, bit_depth, name)
    if own:
        pixels = _copied(pixels, image)
    return replace(prepare_pixels(pixels, bit_depth=bit_depth, name=name), name=file_of(image))


def prepare_pixels(
    pixels: Image.Image | DeepPixels | NDArray[np.uint8], *, bit_depth: int, name: str
) -> Prepared:
    """Upright pixels as they are sent; an array is RGB already.

    Raises:
        BitDepthError: brighter than the bit depth allows; `name` begins the sentence.
        ImageFileError: they cannot be converted.
    """

    def reread(another_depth: int) -> Prepared:
        return prepare_pixels(pixels, bit_depth=another_depth, name=name)

    if isinstance(pixels, np.ndarray):
        return Prepared(pixels, bit_depth)
    is_deep = isinstance(pixels, DeepPixels) or pixels.mode.startswith(("I", "F"))
    try:
        rgb = image_decoding.to_rgb(pixels, bit_depth=bit_depth)
    except ImageError as error:
        raise (BitDepthError if is_deep else ImageFileError)(f"{name} {error}.") from None
    return Prepared(rgb, bit_depth, reread if is_deep else None)


def file_of(image: Any) -> str:
    """The file of an image that a program holds, for traces; empty where it does not know it itself."""
    known = image.info.get(FILE) if isinstance(image, Image.Image) else None
    return str(known or getattr(image, "filename", "") or "")


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put an image's name before its fault.

    Raises:
        ImageFileError: in place of an ImageError within.
    """
    try:
        yield
    except ImageError as error:
        raise ImageFileError(f"{name} {error}.") from None


def check_many(images: Any) -> Any:
    """Several images, which can be gone through with `for` or `async for`.

    One alone would be taken apart into its letters, bytes or rows.

    Raises:
        RequestError: it is one image, or nothing that can be gone through.
    """
    one = isinstance(images, Image.Image | bytes | bytearray | memoryview | str | os.PathLike)
    if not one and not (isinstance(images, np.ndarray) and images.ndim < 4):
        if hasattr(images, "__aiter__"):
            return images
        with contextlib.suppress(TypeError):
            return iter(images)
    raise RequestError(
        f"Several images were expected, e.g. in a list, and one {type(images).__name__} was given; ask about a single "
        "image with `judge` or `score`."
    )


def _file_bytes(image: bytes | bytearray | memoryview, name: str) -> bytes:
    if isinstance(image, memoryview) and image.ndim != 1:
        raise ImageTypeError(
            f"{name} is a memoryview of {image.ndim} dimensions, and bytes are taken for an image file; give pixels "
            "as a numpy array (numpy.asarray)."
        )
    return bytes(image)


def _kind_of(image: Any) -> str:
    """The type of a value that is no image, and how to come to one where that is known."""
    kind = type(image)
    if kind.__module__.partition(".")[0] == "torch":
        return f"{kind.__module__}.{kind.__name__}, which may be turned into an array with .numpy()"
    if hasattr(image, "read"):
        return f"{kind.__name__}, an open file, whose bytes its .read() gives"
    return kind.__name__


def _pixels_of(
    image: Image.Image | NDArray[Any], bit_depth: int, name: str
) -> Image.Image | DeepPixels | NDArray[np.uint8]:
    return _upright(image) if isinstance(image, Image.Image) else _from_array(image, bit_depth, name)


def _from_array(
    pixels: NDArray[Any], bit_depth: int, name: str
) -> Image.Image | DeepPixels | NDArray[np.uint8]:
    """Pixels of an array; deep ones are still those that were given, all others a copy.

    Raises:
        ImageTypeError: it is of another type or shape.
        ImageError: it has no pixels.
    """
    if np.ma.is_masked(pixels):
        raise ImageTypeError(
            f"{name} is an array with masked pixels; expected one without, as .filled(0) gives it."
        )
    values = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    channels = values.shape[2] if values.ndim == 3 else int(values.ndim == 2)
    plain = pixels.dtype == np.uint8 and channels in (1, 3, 4)
    deep = bit_depth != 8 and pixels.dtype.kind in "uif" and pixels.dtype != np.uint8 and channels in (1, 3)
    if not plain and not deep:
        raise ImageTypeError(
            f"{name} is an array {list(pixels.shape)} of {pixels.dtype}; {_fitting(bit_depth)}."
        )
    if 0 in values.shape:
        raise ImageError(f"is an array {list(pixels.shape)} without pixels")
    if not plain:
        return DeepPixels(values)
    # RGB as it is: through Pillow and back takes ten times as long, which large pictures feel.
    return np.array(values, order="C") if channels == 3 else Image.fromarray(np.ascontiguousarray(values))


def _copied(
    pixels: Image.Image | DeepPixels | NDArray[np.uint8], given: Any
) -> Image.Image | DeepPixels | NDArray[np.uint8]:
    """Pixels that are not those that were given."""
    if isinstance(pixels, DeepPixels):
        return replace(pixels, values=pixels.values.copy())
    return pixels.copy() if pixels is given else pixels


def _fitting(bit_depth: int) -> str:
    """Which arrays fit a category."""
    plain = "expected uint8 [H, W], RGB [H, W, 3] or RGBA [H, W, 4]"
    if bit_depth == 8:
        return f"{plain}, as the category was trained on 8 bits a channel"
    white = (
        "floating-point numbers from 0 to 1" if bit_depth == 1 else f"numbers from 0 to {2**bit_depth - 1:,}"
    )
    return f"{plain}, or grey [H, W] or RGB [H, W, 3] of {white}, as the category was trained on"


def _one_at_a_time(image: Image.Image) -> threading.Lock:
    """The lock of an image: Pillow decodes it where it is first needed, and two threads at a time to other pixels."""
    return LOADING[id(image) // ID_STEP % len(LOADING)]


def _upright(image: Image.Image) -> Image.Image:
    """An image that is open, loaded and turned upright."""
    if 0 in image.size:
        raise ImageError(f"has no pixels ({image.width} x {image.height})")
    with _one_at_a_time(image), image_decoding.naming_damage():
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
        return ImageOps.exif_transpose(image) if turned else image  # which would copy it anyway

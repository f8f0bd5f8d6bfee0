"""Image files in, RGB arrays out: the one way that training, server and client read an image.

It imports Pillow and numpy, and tifffile where that is installed, because it also runs in the server's environment. How
one is resized stands in `resizing`.

A file of 8 bits a channel says itself what is white. A deeper one does not: a camera of 12 bits writes 0 to 4,095 into
16 bits. White is then 2**bit_depth - 1, with the bit depth that the category was trained with; see `deep_pixels`.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

if __package__:
    from model_repository.image_decoder.deep_pixels import DeepPixels as DeepPixels
    from model_repository.image_decoder.deep_pixels import naming_damage as naming_damage
    from model_repository.image_decoder.deep_pixels import read_with_tifffile
    from model_repository.image_decoder.jpeg_scans import END, OTHER_BITS, read_scans
    from model_repository.image_decoder.picture_limits import ImageError as ImageError
    from model_repository.image_decoder.picture_limits import (
        naming_memory,
        require_density,
        require_file_size,
        require_size,
    )
    from model_repository.image_decoder.resizing import resize_image as resize_image
    from model_repository.image_decoder.whole_pictures import require_all_rows, require_all_tiles
else:  # in the server, where all files lie side by side
    from deep_pixels import DeepPixels, naming_damage, read_with_tifffile  # type: ignore[import-not-found, no-redef]
    from jpeg_scans import END, OTHER_BITS, read_scans  # type: ignore[import-not-found, no-redef]
    from picture_limits import (  # type: ignore[import-not-found, no-redef]
        ImageError,
        naming_memory,
        require_density,
        require_size,
    )
    from resizing import resize_image  # type: ignore[import-not-found, no-redef]
    from whole_pictures import require_all_rows, require_all_tiles  # type: ignore[import-not-found, no-redef]

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
JPEGS = ("JPEG", "MPO")  # a file of several JPEGs is the second
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# In Pillow's words: of what it reads one byte of each channel.
WHOLE_16_BIT = ("RGB;16", "RGBA;16", "RGBX;16")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF: BitsPerSample, PhotometricInterpretation, PlanarConfiguration, SampleFormat.
BITS, COLOURS, PLANES, NUMBERS = 258, 262, 284, 339
ROWS = 256  # that are composed at a time
_opening = threading.Lock()


def decode_image(encoded: bytes, *, bit_depth: int = 8) -> Image.Image:
    """Decode an image file to upright 8-bit RGB.

    Grey, palette, CMYK, LAB and deeper images are converted; alpha is composed over black; an EXIF orientation is
    applied. A file of several pages gives its first.

    Args:
        encoded: the file's bytes.
        bit_depth: white of files with more than 8 bits a channel is 2**bit_depth - 1; see `DeepPixels.bit_depth`.

    Raises:
        ImageError: not an image, not one of `FORMATS`, truncated, too large, or brighter than the bit depth allows.
    """
    with naming_damage():
        return to_rgb(decode_pixels(encoded), bit_depth=bit_depth)


def read_image(path: Path, *, bit_depth: int = 8) -> Image.Image:
    """Read an image file as `decode_image` does; the error names the file.

    Raises:
        ImageError: see `decode_image`; or the file cannot be read.
    """
    with naming(path):
        require_file_size(path.stat().st_size)
        return decode_image(path.read_bytes(), bit_depth=bit_depth)


def to_rgb(image: Image.Image | DeepPixels, *, bit_depth: int = 8) -> Image.Image:
    """An image of any mode as 8-bit RGB, as `decode_image` converts it.

    Raises:
        ImageError: brighter than the bit depth allows.
    """
    if isinstance(image, DeepPixels):
        return image.to_8_bits(bit_depth)
    if image.mode.startswith(("I", "F")):
        return DeepPixels(np.asarray(image)).to_8_bits(bit_depth)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        return ImageCms.applyTransform(image, transform) or image
    if image.mode == "La":
        image = image.convert("LA")  # the one mode into which Pillow converts it
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _over_black(image)
    # Pillow would copy an image that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_resized(
    encoded: bytes, size: int | tuple[int, int], *, bit_depth: int = 8, keep_aspect: bool = False
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode and resize, and keep the small one alone.

    Returns:
        What `resize_image` gives, and height and width of the image before.

    Raises:
        ImageError: see `decode_image`.
    """
    image = decode_image(encoded, bit_depth=bit_depth)
    return resize_image(image, size, keep_aspect=keep_aspect), (image.height, image.width)


def decode_pixels(encoded: bytes, *, any_density: bool = False) -> Image.Image | DeepPixels:
    """Decode an image file, upright, without a decision on its bit depth.

    Args:
        encoded: the file's bytes.
        any_density: a file may have as many pixels a byte as it likes: a drawn mask of one's own does.

    Raises:
        ImageError: see `decode_image`.
    """
    if not encoded:
        raise ImageError("is empty")
    try:
        with naming_damage(), open_image(io.BytesIO(encoded)) as image, naming_memory(*image.size):
            if not any_density:
                require_density(*image.size, len(encoded))
            if _is_misread(image):
                return read_with_tifffile(encoded)
            if image.format in JPEGS:
                read_scans(encoded)
            rawmode, tags = _rawmode(image), _tiff_tags(image)
            require_all_tiles(image)
            _load_upright(image, encoded)
            if image.mode.startswith(("I", "F")):
                values, inverted = np.asarray(image), tags.get(COLOURS) == 0
                if image.mode == "I" and tags.get(BITS) == (32,) and 2 not in tags.get(NUMBERS, ()):
                    values = values.view(np.uint32)  # Pillow takes the highest bit for a sign
                return DeepPixels(values, inverted=inverted)
            if image.format in ("PNG", "TIFF") and ";16" in rawmode:
                return _16_bit_channels(encoded, image, rawmode)
            return image
    except UnidentifiedImageError:
        if encoded[:4] in TIFF_STARTS:
            return read_with_tifffile(encoded)
        raise ImageError(f"is not an image of a known format ({', '.join(FORMATS)})") from None


def is_deep(path: Path) -> bool:
    """Whether an image file has more than 8 bits a channel, by its header; False for what cannot be read."""
    try:
        with naming(path), naming_damage(), open_image(path) as image:
            mode, rawmode = image.mode, _rawmode(image)
            deep_channels = image.format in ("PNG", "TIFF") and ";16" in rawmode
            return mode.startswith(("I", "F")) or deep_channels or _is_misread(image)
    except ImageError:
        return False
    except UnidentifiedImageError:
        with path.open("rb") as file:
            return file.read(4) in TIFF_STARTS


def open_image(source: io.BytesIO | Path) -> ImageFile.ImageFile:
    """Open an image file of one of `FORMATS`, its pixels not yet decoded.

    Pillow's own limit of pixels, a global of the process, is set aside only while the header is read.

    Raises:
        UnidentifiedImageError: no image, or one that Pillow does not know.
        ImageError: more pixels than the limit, see `picture_limits`.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    require_size(*image.size)
    return image


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before an image's fault.

    Raises:
        ImageError: in place of an ImageError or OSError within.
        UnidentifiedImageError: as it is.
    """
    try:
        yield
    except UnidentifiedImageError:  # an OSError, but of the content
        raise
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error})") from None
    except ImageError as error:
        raise ImageError(f"{path} {error}") from None


def _load_upright(image: Image.Image, encoded: bytes) -> None:
    image.load()
    if image.format == "PNG":
        require_all_rows(image, encoded)
    if image.format in JPEGS:
        _require_all_blocks(image, encoded)
    ImageOps.exif_transpose(image, in_place=True)


def _require_all_blocks(image: Image.Image, jpeg: bytes) -> None:
    """Refuse a JPEG whose blocks end early, the rest of which libjpeg gives in one colour.

    Other bits are put behind the last ones: they change the picture if any are missing. Of a plain JPEG only where its
    last 8 pixels are of one colour, and at an eighth of its size; of a progressive one, which no camera makes, always.

    Raises:
        ImageError: they do.
    """
    (width, height), scans = image.size, read_scans(jpeg)
    last = np.asarray(image.crop((max(0, width - 8), height - 1, width, height)))
    if not scans.by_huffman or (not scans.progressive and (last != last[:, :1]).any()):
        return
    mode, share = ("L", 1) if scans.progressive else (None, 8)
    drafts = []
    for bits in (b"", OTHER_BITS):
        with open_image(io.BytesIO(jpeg[: scans.end] + bits + END)) as draft:
            draft.draft(mode, (max(1, width // share), max(1, height // share)))
            drafts.append(np.asarray(draft))
    if not np.array_equal(drafts[0], drafts[1]):
        raise ImageError("is truncated or damaged (its pixels end early)")


def _over_black(image: Image.Image) -> Image.Image:
    """An image with alpha as RGB over black, some rows at a time: a whole one in three more copies takes its memory."""
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, ROWS):
        box = (0, top, image.width, min(top + ROWS, image.height))
        rgba = image.crop(box).convert("RGBA")
        result.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB"), box)
    return result


def _tiff_tags(image: Image.Image) -> Any:
    """The tags of a TIFF by number; none of another format."""
    return getattr(image, "tag_v2", {})


def _is_misread(image: Image.Image) -> bool:
    """Whether it is a TIFF whose numbers Pillow takes for others: deep planes one after another, or signed bytes."""
    tags = _tiff_tags(image)
    bits = max(tags.get(BITS, (8,)))
    return (bits > 8 and tags.get(PLANES) == 2) or (bits == 8 and 2 in tags.get(NUMBERS, ()))


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the pixels lie in the file, in Pillow's words, as `RGB;16B`; known until they are loaded."""
    arguments: Any = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _16_bit_channels(encoded: bytes, image: Image.Image, rawmode: str) -> DeepPixels:
    """Channels of 16 bits, of which Pillow gives the higher bytes; read as the other byte order it gives the lower."""
    kind, _, order = rawmode.rpartition(";16")
    if f"{kind};16" not in WHOLE_16_BIT:
        return DeepPixels(np.asarray(to_rgb(image)).astype(np.uint16) * 257, high_bytes_only=True)
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    swapped = f"{kind};16{'B' if little else 'L'}"
    with open_image(io.BytesIO(encoded)) as other:
        other.tile = [
            tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
            for tile in other.tile
        ]
        _load_upright(other, encoded)
        values = np.asarray(image).astype(np.uint16)
        values <<= 8
        values |= np.asarray(other)
    return DeepPixels(values[..., :3], values[..., 3:] if kind == "RGBA" else None)

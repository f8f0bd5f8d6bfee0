"""Whether a file holds all of its pixels: what is missing Pillow gives as black, and says nothing.

A file that is cut short is an error of the decoders themselves. These are the files that say they are whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile

if __package__:
    from model_repository.image_decoder.picture_limits import ImageError
else:  # in the server, where both files lie side by side
    from picture_limits import ImageError  # type: ignore[import-not-found, no-redef]

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Of an interlaced PNG: first column and row of each pass, and the steps to the next ones.
PNG_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def require_all_tiles(image: ImageFile.ImageFile) -> None:
    """Refuse a file that does not say where some of its pixels lie, and that Pillow would give as black ones.

    Raises:
        ImageError: it does not.
    """
    (width, height), boxes = image.size, [tile.extents for tile in image.tile if tile.extents is not None]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if boxes and covered < width * height:
        raise ImageError(f"is truncated or damaged (it holds {covered:,} of {width * height:,} pixels)")


def require_all_rows(image: Image.Image, encoded: bytes) -> None:
    """Refuse a PNG whose pixels end early, the rest of which Pillow gives as black.

    Only where one of the last two rows is black: there the file's rows are counted.

    Raises:
        ImageError: they do.
    """
    last = np.asarray(image.crop((0, max(0, image.height - 2), image.width, image.height)))
    if last.reshape(len(last), -1).any(axis=1).all():
        return
    width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", encoded[16:29])
    passes = PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * bits * PNG_CHANNELS[colours] // 8))
    found = sum(map(len, _unpacked(encoded)))
    if found < expected:
        raise ImageError(f"is truncated or damaged (it holds {found:,} of {expected:,} bytes of pixels)")


def _unpacked(png: bytes) -> Iterator[bytes]:
    """The bytes of a PNG's filtered rows, some at a time."""
    unpacker, position = zlib.decompressobj(), 8
    while position + 8 <= len(png) and not unpacker.eof:
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        packed = png[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        while packed:
            yield unpacker.decompress(packed, 1 << 20)
            packed = unpacker.unconsumed_tail
        position += length + 12

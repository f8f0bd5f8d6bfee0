"""Image files put together byte by byte, for what no library writes: headers that lie, chunks, tags and scans."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3  # colour types of PNG
SHORT, LONG = 3, 4  # types of a TIFF's tags


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A picture of soft shapes and some noise, so that no two of its parts are alike."""
    noise = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    shapes = np.stack(
        [127 + 100 * np.sin(rows / 7 + channel) * np.cos(columns / 5) for channel in range(3)], -1
    )
    return Image.fromarray((shapes + noise.integers(-20, 21, shapes.shape)).clip(0, 255).astype(np.uint8))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG: length, name, content, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, *, bits: int = 8, colours: int = RGB) -> bytes:
    """The beginning of a PNG."""
    return PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))


def png(width: int, height: int, pixels: bytes, *extra: bytes, bits: int = 8, colours: int = RGB) -> bytes:
    """A PNG of filtered rows, with further chunks before them."""
    packed = chunk(b"IDAT", zlib.compress(pixels, 9))
    return (
        png_header(width, height, bits=bits, colours=colours) + b"".join(extra) + packed + chunk(b"IEND", b"")
    )


def one_colour_png(width: int, height: int, *, bits: int, colours: int = GREY) -> bytes:
    """A black PNG of any size, packed row by row: the file is a thousandth of its pixels, and so is the memory here."""
    row = b"\0" + bytes((width * bits * (3 if colours == RGB else 1) + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    start = png_header(width, height, bits=bits, colours=colours)
    return start + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def zeros_packed(n_bytes: int) -> bytes:
    """Zeros as zlib packs them, a thousandth of their number."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(n_bytes >> 20)]
    return b"".join(parts) + packer.flush()


def tiff(tags: Sequence[tuple[int, int, Sequence[int]]], data: bytes, *, next_page: int = 0) -> bytes:
    """A TIFF of one page.

    Args:
        tags: number, type (`SHORT` or `LONG`) and values, ascending; a value of -1 is where `data` begins, which is
            behind the header.
        data: pixels, and whatever else.
        next_page: where the file says that its next page lies.
    """
    body, entries, place = bytearray(data), [], 8
    for number, kind, values in tags:
        values = [place if value == -1 else value for value in values]
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            body += bytes(len(body) % 2)
            where = place + len(body)
            body += packed
            packed = struct.pack("<I", where)
        entries.append(struct.pack("<HHI", number, kind, len(values)) + packed.ljust(4, b"\0"))
    body += bytes(len(body) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", next_page)
    return b"II*\0" + struct.pack("<I", place + len(body)) + bytes(body) + directory


def tiff_tags(
    width: int, height: int, *, n_bytes: int, packing: int = 1, bits: Sequence[int] = (8,)
) -> list[tuple[int, int, Sequence[int]]]:
    """The tags of a grey or RGB TIFF in one strip, where `data` begins."""
    return [
        (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, bits), (259, SHORT, [packing]),
        (262, SHORT, [2 if len(bits) == 3 else 1]), (273, LONG, [-1]), (277, SHORT, [len(bits)]),
        (278, LONG, [height]), (279, LONG, [n_bytes]),
    ]  # fmt: skip


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_frame(marker: int, width: int, height: int, *, n_components: int = 3, bits: int = 8) -> bytes:
    """The segment of a JPEG that says how large it is; the marker is C0 for the plain kind."""
    components = b"".join(struct.pack("BBB", number + 1, 0x11, 0) for number in range(n_components))
    return jpeg_segment(marker, struct.pack(">BHHB", bits, height, width, n_components) + components)


def changed_frame(jpeg: bytes, frame: bytes) -> bytes:
    """A JPEG whose plain frame is another one."""
    start = jpeg.index(b"\xff\xc0")
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + frame + jpeg[start + 2 + length :]


def webp_extended(width: int, height: int, *chunks: bytes) -> bytes:
    """A WebP whose canvas is as large as it says."""
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + webp_chunk(b"VP8X", canvas) + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

"""The scans of a JPEG: too many of them, or fewer than its picture needs.

A stream that loses its end and is closed all the same, as that of a camera does, is a valid JPEG to libjpeg: it fills
the rest with one colour, and says so to nobody that Pillow asks. It imports nothing but Python's own modules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

if __package__:
    from model_repository.image_decoder.picture_limits import ImageError
else:  # in the server, where both files lie side by side
    from picture_limits import ImageError  # type: ignore[import-not-found, no-redef]

MAX_SCANS = 40  # a progressive one has about 10, and each goes over all pixels again
COEFFICIENTS = 64  # of a block
END = b"\xff\xd9"
# Bits that no picture goes on with, where one is cut off: none of these bytes begins a marker.
OTHER_BITS = bytes(range(1, 250, 3))
# A marker: not the zero behind an FF of the pixels, nor a restart between them, nor padding.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_START, _END, _SCAN, _PROGRESSIVE = 0xD8, 0xD9, 0xDA, 0xC2
_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}


@dataclass(frozen=True)
class JpegScans:
    """The first picture of a file.

    Attributes:
        end: where its end is marked, or the file ends.
        progressive: its pixels become finer with each scan.
        by_huffman: it is coded as nearly all are. The rare arithmetic coding leaves out zeros at its end, so that bits
            behind it do change a whole picture.
    """

    end: int
    progressive: bool
    by_huffman: bool


def read_scans(jpeg: bytes) -> JpegScans:
    """Go from marker to marker.

    Raises:
        ImageError: more than 40 scans, or they leave out a part of the picture's frequencies or colours.
    """
    n_scans, position, progressive = 0, 0, False
    missing: dict[int, set[int]] = {}  # by component, the coefficients that no scan has brought in full
    while match := _MARKER.search(jpeg, position):
        marker, position = match.group(1)[0], match.end()
        if marker == _END:
            position = match.start()
            break
        if marker == _START:
            continue
        length = int.from_bytes(jpeg[position : position + 2], "big")
        segment = jpeg[position + 2 : position + length]
        position += length
        if marker in _FRAMES and not missing:
            progressive = marker == _PROGRESSIVE
            missing = {component: set(range(COEFFICIENTS)) for component in segment[6::3]}
        if marker == _SCAN and segment:
            n_scans += 1
            _take(segment, missing)
        if n_scans > MAX_SCANS:
            raise ImageError(f"is a JPEG of more than {MAX_SCANS} scans; save it anew")
    else:
        position = len(jpeg)
    if any(missing.values()):
        raise ImageError(f"is truncated or damaged (its {n_scans} scans are not all of the picture's)")
    return JpegScans(position, progressive, by_huffman=bool(missing))


def _take(scan: bytes, missing: dict[int, set[int]]) -> None:
    """Note what a scan brings: some coefficients of some components, to the last bit or not."""
    n_components = scan[0]
    first, last, bits = (*scan[1 + 2 * n_components :], 0, 0, 0)[:3]
    if bits & 15:  # more bits come with a later scan
        return
    for component in scan[1 : 1 + 2 * n_components : 2]:
        missing.get(component, set()).difference_update(range(first, last + 1))

"""The JPEGs among the bad pictures; see `bad_pictures`."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from tests.model_repository.picture_bytes import changed_frame, encoded, jpeg_frame, photo


def jpeg_of_five_channels() -> bytes:
    return changed_frame(encoded(photo(), "JPEG"), jpeg_frame(0xC0, 48, 32, n_components=5))


def lossless_jpeg() -> bytes:
    return changed_frame(encoded(photo(), "JPEG"), jpeg_frame(0xC3, 48, 32))


def jpeg_of_12_bits() -> bytes:
    return changed_frame(encoded(photo(), "JPEG"), jpeg_frame(0xC1, 48, 32, bits=12))


def jpeg_of_a_thousand_scans() -> bytes:
    """Each scan goes over the whole picture again; a few bytes of file are seconds of work."""
    whole = encoded(Image.new("RGB", (4_000, 4_000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 1_000 + whole[-2:]


def closed_jpeg(share: float, **options: bool) -> Callable[[], bytes]:
    """A stream that lost its end, and was closed."""

    def make() -> bytes:
        whole = encoded(photo(160, 120), "JPEG", **options)
        return whole[: int(share * len(whole))] + b"\xff\xd9"

    return make


def jpeg_of_grey_scans_alone() -> bytes:
    """Three colours are named, and the only scan is that of one."""
    whole = encoded(photo().convert("L"), "JPEG")
    return changed_frame(whole, jpeg_frame(0xC0, 48, 32))


def huge_jpeg_header() -> bytes:
    return changed_frame(encoded(photo(), "JPEG"), jpeg_frame(0xC0, 50_000, 50_000))

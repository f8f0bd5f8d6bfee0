"""Which images an archive has: those in a folder, or those that a text file names, a path a line."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from client.archiving.plan import END, states_of
from client.core.errors import ImageFileError
from client.pictures.folders import NO_IMAGE, LeftOut, find_images
from client.pictures.layout import absolute
from client.pictures.rules import is_no_part
from model_repository.image_decoder.image_decoding import SUFFIXES

BOM = b"\xef\xbb\xbf"  # what Windows puts before a text


@dataclass(frozen=True)
class Listed:
    """The images of an archive.

    Attributes:
        paths: from the root, in the order of their bytes, each ended by a zero byte.
        states: of their files, see `plan.states_of`.
        count: of them, at least 1.
        left_out: what is not judged, see `pictures.folders`.
    """

    paths: bytes
    states: bytes
    count: int
    left_out: list[LeftOut]


def list_images(source: Path) -> Listed:
    """The images in a folder, in depth, by the rules of `predict`; or those of a text file with a path a line.

    Finding them takes ten times the memory that their paths then have, so that a process of its own does it. A list's
    files need not be here, for they may lie where only the workers see them. A path that does not begin at the
    root begins in the folder in which this is called.

    Raises:
        ImageFileError: there is no such folder or file, or no image in it.
    """
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        return pool.submit(find, source).result()


def find(source: Path) -> Listed:
    """As `list_images`, in this process."""
    if source.is_dir():
        found = find_images([source])
        paths = [os.fsencode(absolute(image.path)) for image in found.images]
        return _listed(paths, found.left_out)
    paths, left_out = _read_list(source)
    if not paths:
        raise ImageFileError(
            f"{source} names no image; expected a text file with the path of one on each line."
        )
    return _listed(paths, left_out)


def _listed(paths: list[bytes], left_out: list[LeftOut]) -> Listed:
    paths = sorted(paths)
    return Listed(b"".join(path + END for path in paths), states_of(paths), len(paths), left_out)


def _read_list(source: Path) -> tuple[list[bytes], list[LeftOut]]:
    if source.suffix.lower() in SUFFIXES:
        raise ImageFileError(
            f"{source} has the ending of an image; give a folder, or a text file with the path of an image on each "
            "line."
        )
    try:
        text = source.read_bytes().removeprefix(BOM)
    except OSError as error:
        raise ImageFileError(
            f"{source} cannot be read ({error.strerror}); give a folder, or a text file with the path of an image on "
            "each line."
        ) from None
    if END in text:
        raise ImageFileError(f"{source} is no text; expected the path of an image on each line.")
    paths: dict[bytes, None] = {}
    left_out = []
    for line in text.splitlines():
        if not line.strip():
            continue
        path = absolute(Path(os.fsdecode(line)))
        if is_no_part(path):
            left_out.append(LeftOut(path, NO_IMAGE, may_be_part=False))
        elif os.fsencode(path) in paths:
            left_out.append(LeftOut(path, "was given twice and is judged once", may_be_part=False))
        else:
            paths[os.fsencode(path)] = None
    return list(paths), left_out

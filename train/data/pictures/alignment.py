"""Loaded images brought to where a reference picture has their part, with the server's own function."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_repository.alignment.picture_alignment import Aligned, Aligner, AlignmentError, Pixels
from model_repository.alignment.reference_picture import Reference
from train.data.pictures.loaded import LoadedImages, SentPictures, shown_of
from train.errors import DataError
from train.support.files import readable_text
from train.support.progress import console, progress_bar


def align_images(
    images: LoadedImages, paths: Sequence[Path], *, reference: Reference, strict: bool, what: str
) -> LoadedImages:
    """Align images to a reference; those that cannot be aligned are told and left out, as broken ones are.

    Args:
        images: as they lie.
        paths: the files that they were loaded from, with those that could not be read.
        reference: what they are aligned to.
        strict: stop at the first that cannot be aligned.
        what: what the progress bar calls them.

    Raises:
        DataError: one cannot be aligned when strict, or none can be.
    """
    aligned: list[Aligned] = []
    kept, faults = [], []
    results = align_each(images.pixels, reference, what=what)
    for position, (index, result) in enumerate(zip(images.readable, results, strict=True)):
        if isinstance(result, Aligned):
            aligned.append(result)
            kept.append(position)
            continue
        faults.append(f"{readable_text(paths[index])} {result}")
        if strict:
            raise DataError(f"{faults[-1]}; or leave out --strict to skip it.")
    for sentence in faults:
        console.print(f"Skipped: {sentence}", style="yellow", markup=False)
    if faults:
        console.print(
            f"{len(faults)} of {len(results)} {what} cannot be aligned; the server refuses a part that lies so, and "
            "says why: it is never good.",
            style="yellow",
        )
    if not kept:
        raise DataError(f"None of the {len(results)} {what} can be aligned; the first: {faults[0]}.")
    motions = np.stack([one.motion for one in aligned])
    pixels = np.stack([one.pixels for one in aligned])
    boxes = None if images.boxes is None else images.boxes[kept]
    return replace(
        images,
        pixels=pixels,
        readable=tuple(images.readable[position] for position in kept),
        broken=(*images.broken, *faults),
        shown=shown_of(boxes, pixels.shape, motions),
        sent=SentPictures(images.pixels[kept], shown_of(boxes, pixels.shape), motions),
        boxes=boxes,
    )


def align_each(pixels: Pixels, reference: Reference, *, what: str) -> list[Aligned | AlignmentError]:
    """Align images [N, H, W, 3] uint8 on all cores; what is wrong in place of one that cannot be."""
    aligner = Aligner(reference)

    def align(picture: Pixels) -> Aligned | AlignmentError:
        try:
            return aligner.align(picture)
        except AlignmentError as error:
            return error

    results = []
    with ThreadPoolExecutor() as pool, progress_bar(f"Aligning {what}", len(pixels)) as bar:
        for result in pool.map(align, pixels):
            results.append(result)
            bar.advance()
    return results

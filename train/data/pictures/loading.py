"""Images of a category, read, resized and stacked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from model_repository.image_decoder.image_decoding import ImageError, read_image, resize_image
from model_repository.image_decoder.picture_limits import SMALLEST_OWN_SIDE
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import NATIVE, ImageSize
from train.data.pictures.loaded import LoadedImages, shown_of
from train.errors import DataError
from train.support.libraries import require_opencv
from train.support.progress import console, progress_bar


def load_images(
    paths: Sequence[Path],
    *,
    image_size: ImageSize,
    strict: bool,
    bit_depth: int = 8,
    keep_aspect: bool = False,
    what: str = "images",
    reference: Reference | None = None,
) -> LoadedImages:
    """Read, resize and stack images, on all cores.

    Args:
        paths: image files.
        image_size: of the result.
        strict: stop at the first broken image instead of skipping it with a warning.
        bit_depth: of the category, see `train.data.bit_depth`.
        keep_aspect: of the category, see `train.data.shapes`.
        what: what the progress bar calls them.
        reference: to align them to; one that cannot be aligned is skipped as a broken one is.

    Raises:
        DataError: a broken image when strict, or no readable image at all.
    """

    def load(path: Path) -> NDArray[np.uint8] | ImageError:
        try:
            image = read_image(path, bit_depth=bit_depth)
        except ImageError as error:
            return error
        parts[path] = fitted_part(image.size, image_size)
        return resize_image(image, image_size, keep_aspect=keep_aspect)

    parts: dict[Path, tuple[slice, slice]] = {}

    loaded: list[NDArray[np.uint8] | ImageError] = []
    with ThreadPoolExecutor() as pool, progress_bar(f"Reading {what}", len(paths)) as bar:
        for result in pool.map(load, paths):
            if strict and isinstance(result, ImageError):
                pool.shutdown(cancel_futures=True)
                raise DataError(f"{result}; mend or remove it, or leave out --strict to skip it.")
            loaded.append(result)
            bar.advance()
    readable = tuple(i for i, image in enumerate(loaded) if isinstance(image, np.ndarray))
    broken = tuple(str(image) for image in loaded if isinstance(image, ImageError))
    _tell_of_broken(broken, len(paths), what)
    _warn_of_plain(loaded, paths, what)
    if image_size == NATIVE:
        _require_judged_sizes([(paths[index], parts[paths[index]]) for index in readable])
    pixels = np.stack([image for image in loaded if isinstance(image, np.ndarray)])
    boxes = None
    if keep_aspect or image_size == NATIVE:
        boxes = np.array([_box(*parts[paths[index]]) for index in readable], np.int32)
    images = LoadedImages(pixels, readable, broken, shown_of(boxes, pixels.shape), boxes=boxes)
    if reference is None:
        return images
    require_opencv()
    from train.data.pictures.alignment import align_images

    return align_images(images, paths, reference=reference, strict=strict, what=what)


def _box(rows: slice, columns: slice) -> tuple[int, int, int, int]:
    return rows.start, columns.start, rows.stop, columns.stop


def _tell_of_broken(broken: Sequence[str], count: int, what: str) -> None:
    for sentence in broken:
        console.print(f"Skipped: {sentence}", style="yellow", markup=False)
    if broken:
        console.print(f"{len(broken)} of {count} {what} skipped.", style="yellow")
    if len(broken) == count:
        raise DataError(
            f"None of the {count} {what} can be read; the first: {broken[0] if broken else 'none'}."
        )


def _require_judged_sizes(parts: Sequence[tuple[Path, tuple[slice, slice]]]) -> None:
    """Refuse pictures of several sizes, where each keeps its own, and those that the server would refuse.

    Raises:
        DataError: they are.
    """
    for path, (rows, columns) in parts:
        if min(rows.stop, columns.stop) < SMALLEST_OWN_SIDE:
            raise DataError(
                f"{path} is {columns.stop} x {rows.stop} pixels; expected sides of at least {SMALLEST_OWN_SIDE} where "
                "pictures keep their own size, as the server takes them: take --image-size 256, say."
            )
    by_size = {(columns.stop, rows.stop): path for path, (rows, columns) in parts}
    if len(by_size) > 1:
        (first, one), (second, other) = sorted(by_size.items())[:: len(by_size) - 1]
        raise DataError(
            f"{one} is {first[0]} x {first[1]} pixels and {other} {second[0]} x {second[1]}; expected pictures of one "
            "size where each keeps its own: crop them to one, or take an --image-size for all."
        )


def _warn_of_plain(
    loaded: Sequence[NDArray[np.uint8] | ImageError], paths: Sequence[Path], what: str
) -> None:
    """Tell of images of one colour: transparent throughout, or taken with the lens covered."""
    plain = [
        path
        for path, image in zip(paths, loaded, strict=True)
        if isinstance(image, np.ndarray) and (image == image[0, 0]).all()
    ]
    if plain:
        console.print(
            f"Warning: {len(plain)} of {len(paths)} {what} are of one colour throughout, {plain[0].name} among them; "
            "they may be transparent, or taken in the dark; look at them.",
            style="yellow",
            markup=False,
        )

"""The bit depth of a data set: which value of images with more than 8 bits a channel is white.

A camera of 12 bits writes 0 to 4,095 into files of 16 bits, and no file says so. The brightest of all training images
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model_repository.image_decoder.deep_pixels import DeepPixels, ImageError, white_of
from model_repository.image_decoder.image_decoding import decode_pixels, is_deep, naming
from train.data.category import CategoryData
from train.errors import DataError
from train.support.progress import console, progress_bar

DARK_SHARE = 0.1  # of white; below, the bit depth is likely another


@dataclass(frozen=True)
class DeepImage:
    """An image of more than 8 bits a channel: its brightest value and the bit depth that holds it."""

    path: Path
    brightest: float
    bit_depth: int


def find_bit_depth(data: CategoryData, *, asked: int | None = None) -> int:
    """The bit depth that a category's images are read with; found from the training images unless it is asked for.

    What is found is told, and so are images of 8 bits among deeper ones. Files that cannot be read are left out here;
    `load_images` names them.

    Returns:
        8 where no training image is deeper; 1 for floating-point images from 0 to 1; else the bits of the camera.

    Raises:
        DataError: an image is brighter than the bit depth allows, the test images among them.
    """
    trained = deep_images(data.train_good)
    found = max((image.bit_depth for image in trained), default=8)
    bit_depth = found if asked is None else asked
    tested = deep_images([image.path for image in data.test])
    for image in (*trained, *tested):
        if image.brightest > white_of(bit_depth):
            origin = "no training image has more"
            if trained:
                origin = f"the brightest of {len(trained)} deep training images has {found}"
            raise _too_bright(
                image, bit_depth, found=found, origin=origin if asked is None else f"--bit-depth {asked}"
            )
    if trained:
        brightest = max(image.brightest for image in trained)
        origin = "found from the brightest training image" if asked is None else "as asked for"
        console.print(
            f"Images of {data.category!r} hold values up to {brightest:,g}: white is {white_of(bit_depth):,}, bit "
            f"depth {bit_depth}, {origin}; --bit-depth overrides.",
            markup=False,
        )
        if brightest < DARK_SHARE * white_of(bit_depth):
            console.print(
                f"Warning: the brightest training image of {data.category!r} reaches {brightest:,g} of "
                f"{white_of(bit_depth):,}, so that all are nearly black; give the camera's --bit-depth, or save "
                "floating-point images with values from 0 to 1.",
                style="yellow",
                markup=False,
            )
    elif asked not in (None, found):
        console.print(
            f"Warning: --bit-depth {asked} changes nothing here: no training image of {data.category!r} has more than "
            "8 bits a channel; deeper images will be read with it.",
            style="yellow",
            markup=False,
        )
    if trained:
        tested_paths = [image.path for image in data.test]
        for what, paths in (("training", data.train_good), ("test", tested_paths)):
            warn_of_8_bits(paths, bit_depth, category=data.category, what=what)
    return bit_depth


def _too_bright(image: DeepImage, bit_depth: int, *, found: int, origin: str) -> DataError:
    remedy = "save them all alike"
    if 1 not in (found, image.bit_depth):  # no bit depth fits floating-point numbers and integers
        needed = max(found, image.bit_depth)
        remedy = (
            f"give --bit-depth {needed} (make: BIT_DEPTH={needed}) if one camera took them all, or {remedy}"
        )
    return DataError(
        f"{image.path} has values up to {image.brightest:,g}; expected at most {white_of(bit_depth):,}, the white of "
        f"bit depth {bit_depth} ({origin}); {remedy}."
    )


def deep_images(paths: Sequence[Path]) -> list[DeepImage]:
    """Those of the image files that have more than 8 bits a channel, which have to be decoded; on all cores."""
    deep = [path for path in paths if is_deep(path)]
    if not deep:
        return []
    measured = []
    with ThreadPoolExecutor() as pool, progress_bar("Bit depth", len(deep)) as bar:
        for image in pool.map(_measure, deep):
            measured += [image] if image is not None else []
            bar.advance()
    return measured


def _measure(path: Path) -> DeepImage | None:
    try:
        with naming(path):
            pixels = decode_pixels(path.read_bytes())
            if isinstance(pixels, DeepPixels):
                return DeepImage(path, pixels.brightest, pixels.bit_depth())
    except ImageError:
        return None
    return None


def warn_of_8_bits(paths: Sequence[Path], bit_depth: int, *, category: str, what: str) -> None:
    """Tell of images of 8 bits where deeper ones are expected: they were converted, and nobody knows how."""
    shallow = [path for path in paths if not is_deep(path)]
    if shallow:
        console.print(
            f"Warning: {len(shallow)} of {len(paths)} {what} images of {category!r} have 8 bits a channel, "
            f"{shallow[0].name} among them, where bit depth {bit_depth} is expected; they are taken as they are, with "
            "255 as white; save all alike.",
            style="yellow",
            markup=False,
        )

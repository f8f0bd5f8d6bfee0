"""The files of one category, and how its images are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from model_repository.image_decoder.image_decoding import (
    SUFFIXES,
    ImageError,
    read_image,
    resize_image,
)
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import NATIVE, ImageSize
from train.data.layout import read_layout
from train.data.mask_files import match_masks
from train.errors import DataError
from train.support.category_names import check_category_name
from train.support.files import readable_text
from train.support.libraries import require_opencv
from train.support.progress import console, progress_bar


@dataclass(frozen=True)
class TestImage:
    """One image of the test set.

    Attributes:
        path: the image file.
        defect: name of its defect kind, `good` where it has none.
        mask_path: its ground truth mask, where there is one.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    path: Path
    defect: str
    mask_path: Path | None

    @property
    def anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != "good"


@dataclass(frozen=True)
class CategoryData:
    """The files of one category, in MVTec AD's layout.

    Attributes:
        dataset: `mvtec_ad`, `elpv`, `synthetic` or `folder`.
        category: the product's name.
        root: the folder that holds it.
        train_good: the good images to train on and calibrate with, sorted by name.
        test: the test set; empty for a plain folder of good images.
        notes: one sentence for whatever was taken for something else, or left out.
    """

    dataset: str
    category: str
    root: Path
    train_good: tuple[Path, ...]
    test: tuple[TestImage, ...]
    notes: tuple[str, ...] = ()

    @property
    def test_dir(self) -> Path:
        """The folder of the test images; the category's own where it has none."""
        return self.root / self.test[0].path.relative_to(self.root).parts[0] if self.test else self.root

    @property
    def synthetic(self) -> bool:
        """Whether the images were rendered; everything made from them says so."""
        return self.dataset == "synthetic"

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the training images, in hexadecimal."""
        return fingerprint(self.train_good)

    def test_fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the test images and masks, in hexadecimal."""
        masks = [image.mask_path for image in self.test if image.mask_path is not None]
        return fingerprint([*(image.path for image in self.test), *masks])


@dataclass(frozen=True)
class SentPictures:
    """Images as they lie, and how they were aligned.

    Attributes:
        pixels: [N, H, W, 3] uint8, RGB.
        shown: see `LoadedImages`.
        motions: [N, 2, 3], see `model_repository.alignment.picture_alignment`.
    """

    pixels: NDArray[np.uint8]
    shown: NDArray[np.bool_] | None
    motions: NDArray[np.float32]


@dataclass(frozen=True)
class LoadedImages:
    """Images of one size in memory.

    Attributes:
        pixels: [N, H, W, 3] uint8, RGB.
        readable: positions of the images that could be read, in the list that was given.
        broken: one sentence for each image that could not be read.
        shown: [N, H, W] bool, False where an image that kept its shape is filled; None where all were stretched.
        sent: the same images before they were aligned; None where they are as they lie.
    """

    pixels: NDArray[np.uint8]
    readable: tuple[int, ...]
    broken: tuple[str, ...]
    shown: NDArray[np.bool_] | None = None
    sent: SentPictures | None = None


def fingerprint(paths: Sequence[Path]) -> str:
    """SHA-256 over the folders' and files' names and the bytes of images, in hexadecimal.

    Raises:
        DataError: a file cannot be read: it was removed meanwhile, or is another user's.
    """
    digest = hashlib.sha256()
    for path in paths:
        name = f"{path.parent.name}/{path.name}\n".encode(errors="surrogateescape")
        digest.update(name + hashlib.sha256(read_bytes(path)).digest())
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it vanished, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); make it readable for this user, or move it away, and "
            "start again."
        ) from None


def read_category(root: Path, *, dataset: str, category: str) -> CategoryData:
    """List a category's files: MVTec AD's layout, or a plain folder of good images; see `train.data.layout`.

    Raises:
        DataError: the folder is missing, cannot be read or holds no good images to train on; or see
            `check_category_name`.
    """
    check_category_name(category)
    if not root.is_dir():
        raise DataError(
            f"Data folder {root} does not exist; expected {root}/train/good/*.png or a folder of images."
        )
    layout = read_layout(root)
    if not layout.train_good:
        found = " ".join(note for note in layout.notes if f" in {layout.train_dir};" in note)
        raise DataError(
            f"Category {category!r} has no good images: {layout.train_dir} holds none of {', '.join(SUFFIXES)}; put "
            f"images of good parts there. {found}".rstrip()
        )
    masks = match_masks(layout)
    return CategoryData(
        dataset=dataset,
        category=category,
        root=root,
        train_good=layout.train_good,
        test=tuple(
            TestImage(path=path, defect=kind, mask_path=masks.get(path)) for path, _, kind in layout.tested
        ),
        notes=tuple(map(readable_text, layout.notes)),
    )


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
    if not readable:
        raise DataError(
            f"None of the {len(paths)} {what} can be read; the first: {broken[0] if broken else 'none'}."
        )
    if image_size == NATIVE:
        _require_one_size([(paths[index], parts[paths[index]]) for index in readable])
    pixels = np.stack([image for image in loaded if isinstance(image, np.ndarray)])
    own_parts = [parts[paths[index]] for index in readable] if keep_aspect or image_size == NATIVE else None
    images = LoadedImages(pixels, readable, broken, _shown(own_parts, pixels.shape[:3]))
    if reference is None:
        return images
    require_opencv()
    from train.data.alignment import align_images

    return align_images(images, paths, reference=reference, strict=strict, what=what)


def _shown(parts: Sequence[tuple[slice, slice]] | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """[N, H, W], True on the part that each picture takes; None where all take the whole."""
    if parts is None:
        return None
    shown = np.zeros(shape, np.bool_)
    for mask, part in zip(shown, parts, strict=True):
        mask[part] = True
    return None if shown.all() else shown


def _tell_of_broken(broken: Sequence[str], count: int, what: str) -> None:
    for sentence in broken:
        console.print(f"Skipped: {sentence}", style="yellow", markup=False)
    if broken:
        console.print(f"{len(broken)} of {count} {what} skipped.", style="yellow")


def _require_one_size(parts: Sequence[tuple[Path, tuple[slice, slice]]]) -> None:
    """Refuse pictures of several sizes, where each keeps its own.

    Raises:
        DataError: they are.
    """
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


def split_good(
    n_images: int, *, holdout_ratio: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the images to train on, and of those held out for calibration; at least one each.

    Raises:
        DataError: fewer than two images.
    """
    if n_images < 2:
        raise DataError(
            f"Found {n_images} good image; expected at least 2, one to train on and one to calibrate with; add more."
        )
    order = np.random.default_rng(seed).permutation(n_images)
    n_held_out = min(max(1, round(holdout_ratio * n_images)), n_images - 1)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])

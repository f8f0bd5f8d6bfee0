"""The files of one category, and how its good images are split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_repository.image_decoder.image_decoding import (
    SUFFIXES,
)
from train.data.layout import read_layout
from train.data.mask_files import match_masks
from train.errors import DataError
from train.support.category_names import check_category_name
from train.support.files import readable_text


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

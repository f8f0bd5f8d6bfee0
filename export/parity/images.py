"""Which images a product's graphs are compared with PyTorch on."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError
from train.checkpoint.provenance import Provenance
from train.data.category import CategoryData, read_category
from train.errors import DataError


def product_images(provenance: Provenance, images_dir: Path | None) -> CategoryData:
    """The images that a checkpoint of this provenance was trained on, or those of another folder.

    Raises:
        ExportError: there are none.
    """
    root = images_dir or provenance.origin.folder() or Path(provenance.data_root)
    try:
        return read_category(root, dataset=provenance.dataset, category=provenance.category)
    except DataError as error:
        raise ExportError(
            f"{root} holds no images to compare the graphs with PyTorch on; give a folder of the product's "
            f"images with --images. ({error.message})"
        ) from None


def judged_fingerprint(data: CategoryData) -> str:
    """Of the images that a build is held to the parity gate with: the test set, or where there is none the good ones.

    Raises:
        DataError: an image cannot be read.
    """
    return data.test_fingerprint() if data.test else data.fingerprint()

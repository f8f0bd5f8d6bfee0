"""Which images a product's graphs are compared with PyTorch on."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError
from train.checkpoint.tensors import Checkpoint
from train.data.category import CategoryData, read_category
from train.errors import DataError


def product_images(checkpoint: Checkpoint, images_dir: Path | None) -> CategoryData:
    """The images that a checkpoint was trained on, or those of another folder.

    Raises:
        ExportError: there are none.
    """
    provenance = checkpoint.provenance
    root = images_dir or provenance.origin.folder() or Path(provenance.data_root)
    try:
        return read_category(root, dataset=provenance.dataset, category=provenance.category)
    except DataError as error:
        raise ExportError(
            f"{root} holds no images to compare the graphs with PyTorch on; give a folder of the product's "
            f"images with --images. ({error.message})"
        ) from None

"""The images that a run was made of, found again."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from train.checkpoint.provenance import DataOrigin
from train.data.category import CategoryData
from train.data.sources import DATASETS, find_category
from train.errors import CheckpointError, DataError
from train.runs.folder import RunFolder
from train.support.progress import console


def remembered_images(category: str, *, run_dir: Path, data_dir: Path) -> CategoryData | None:
    """The images of a category's run, the finished one or else the unfinished one; which they are is told.

    Args:
        category: the product's name.
        run_dir: where its run lies.
        data_dir: where data sets lie that we lay out ourselves.

    Returns:
        None where there is no run of this category.

    Raises:
        DataError: the images are not where they were, or the checkpoint that names them cannot be read. Others are
            not taken in their place.
    """
    origin = _origin(run_dir)
    if origin is None or origin.category != category:
        return None
    images = _find(origin, run_dir=run_dir, data_dir=data_dir)
    console.print(f"Images: {images.root}, which {run_dir} remembers.", markup=False)
    return images


def tell_not_aligned(run_dir: Path, what: str) -> None:
    """Tell that `what` takes pictures as they lie, where the finished run of the category aligns them."""
    header = None
    with suppress(CheckpointError):
        header = RunFolder(run_dir).finished()
    if header is not None and header.provenance.aligned:
        console.print(
            f"The run in {run_dir} aligns its pictures; {what} takes them as they lie.",
            style="yellow",
            markup=False,
        )


def _origin(run_dir: Path) -> DataOrigin | None:
    run = RunFolder(run_dir)
    if not os.path.exists(run_dir):  # noqa: PTH110  # unlike a Path's, it takes a name of any length
        return None
    try:
        header = run.finished()
    except CheckpointError as error:
        raise DataError(
            f"Which images {run_dir} was trained on cannot be known: {error.message.rstrip('.')}; or give the images "
            "with --data."
        ) from None
    if header is not None:
        return header.provenance.origin
    begun = run.begun()
    return None if begun is None else begun.origin


def _find(origin: DataOrigin, *, run_dir: Path, data_dir: Path) -> CategoryData:
    folder, laid_out = origin.folder(), data_dir / origin.dataset / origin.category
    if origin.dataset in DATASETS and laid_out.is_dir() and (folder is None or folder.samefile(laid_out)):
        return find_category(origin.category, data=origin.dataset, data_dir=data_dir)
    if folder is None:
        raise DataError(
            f"The run in {run_dir} was trained on images in {origin.data_path or origin.data_root}, which is not there "
            "any more; give them with --data."
        )
    # A folder that is called like a data set is one all the same.
    data = str(folder.absolute() if str(folder) in DATASETS else folder)
    return replace(find_category(origin.category, data=data, data_dir=data_dir), dataset=origin.dataset)

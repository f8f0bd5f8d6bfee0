"""ELPV: 2,624 real electroluminescence images of solar cells, out of the PyPI package `elpv-dataset`.

Laid out in MVTec AD's way as categories `mono` and `poly`. A defect probability of 0 is good (70 % of
those to train on, 30 % to test), 1 is defective; the cells in between, on which the experts were not
sure, are left out. There are no masks.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np

from train.errors import DataError
from train.support.files import replacing_folder
from train.support.progress import console

CATEGORIES = ("mono", "poly")
TRAIN_RATIO = 0.7
SPLIT_SEED = 0
LICENCE = """\
ELPV: Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in \
Electroluminescence Imagery" (2018); Deitsch et al., Solar Energy 185 (2019).
Licence: CC BY-NC-SA 4.0 - attribution, no commercial use, share alike. By going on you accept it."""


def lay_out(root: Path, *, category: str) -> Path:
    """Copy a category's images to `root/category`, once; the licence is shown before.

    Raises:
        DataError: the package `elpv-dataset` is not installed.
    """
    target = root / category
    if target.is_dir():
        return target
    console.print(LICENCE, style="cyan")
    package_dir = _package_dir()
    with replacing_folder(target) as folder:
        for source, place in _files(package_dir, category):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / place)
        (folder / "LICENCE.txt").write_text(LICENCE + "\n", encoding="utf-8")
    return target


def _package_dir() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "Data set elpv needs the package elpv-dataset; install it with `pip install elpv-dataset`."
        )
    return Path(spec.origin).parent / "data"


def _files(package_dir: Path, category: str) -> list[tuple[Path, str]]:
    """Pairs of source file and place in MVTec AD's layout, split by a fixed seed."""
    rows = [line.split() for line in (package_dir / "labels.csv").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row and row[2] == category]
    good = [path for path, probability, _ in rows if float(probability) == 0]
    defective = [path for path, probability, _ in rows if float(probability) == 1]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(good))
    n_train = round(TRAIN_RATIO * len(good))
    placed = [(good[i], "train/good") for i in order[:n_train]]
    placed += [(good[i], "test/good") for i in order[n_train:]]
    placed += [(path, "test/defective") for path in defective]
    return [(package_dir / path, f"{folder}/{Path(path).name}") for path, folder in placed]

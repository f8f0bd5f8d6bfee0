"""The data sets that have a name, and how a category is found among them.

`elpv` and `synthetic` make theirs when asked for; MVTec AD is the user's own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from train.data.category import CategoryData, read_category
from train.data.layout import find_folder, folders_of, is_good, list_images
from train.data.sources import elpv
from train.data.sources.synthetic.dataset import MARKER, render_category
from train.errors import DataError
from train.support.category_names import check_category_name
from train.support.progress import console

MVTEC_AD_CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw",
    "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
DATASETS = ("auto", "mvtec_ad", "elpv", "synthetic")


def find_category(category: str, *, data: str, data_dir: Path) -> CategoryData:
    """Find a category's images, laying them out first where the data set is one we can make.

    What is taken for something else, or left out, is told.

    Args:
        category: the product's name.
        data: `mvtec_ad`, `elpv`, `synthetic`, a folder of the user's, or `auto`: the user's copy of MVTec AD
            when it holds the category, ELPV for its two, else the synthetic set.
        data_dir: where data sets lie.

    Raises:
        DataError: an unknown category or one of a name that cannot be used, a missing folder, no good images.
    """
    check_category_name(category)
    files = _find(category, data=data, data_dir=data_dir)
    for note in files.notes:
        console.print(f"Note: {note}", style="yellow", markup=False)
    return files


def find_categories(
    listed: str, *, data: str, data_dir: Path, elsewhere: bool = False
) -> tuple[str, tuple[str, ...]]:
    """Several categories of one data set; those of ELPV are laid out.

    Args:
        listed: names with commas between, or `all`: those that the data set holds here.
        data: `mvtec_ad`, `elpv`, `synthetic`, a folder of the user's that holds the categories' folders, or `auto`: the
            set that has the names; for `all`, MVTec AD where there is a copy, else ELPV.
        data_dir: where data sets lie.
        elsewhere: whether the images of categories that are named may lie on other machines alone.

    Returns:
        The data set, or the folder, and the names.

    Raises:
        DataError: a name that cannot be used, or that the data set does not have, or no category at all.
    """
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in listed.split(",")))))
    if data == "auto":
        data = _dataset_of_all(() if names == ("all",) else names, data_dir)
    if names == ("all",):
        names = _held_categories(data, data_dir)
    if not names:
        raise DataError(f"--categories {listed!r} names none; expected names with commas between, or all.")
    for name in names:
        check_category_name(name)
        if data == "mvtec_ad":
            _require_known(name, MVTEC_AD_CATEGORIES, "MVTec AD")
            if not elsewhere or (data_dir / "mvtec_ad").is_dir():
                _require_unpacked(data_dir / "mvtec_ad" / name)
        if data == "elpv":
            _require_known(name, elpv.CATEGORIES, "ELPV")
            elpv.lay_out(data_dir / "elpv", category=name)
        if data not in DATASETS and not (elsewhere and not Path(data).exists()):
            _require_held(name, Path(data))
    return data, names


def _require_held(category: str, root: Path) -> None:
    """Make sure that a folder holds a category's, and that in it there are images."""
    _require_folder(root)
    if not (root / category).is_dir():
        held = ", ".join(path.name for path in folders_of(root)) or "no folder"
        raise DataError(f"Unknown category {category!r} in {root}; it holds {held}.")
    if not list_images(root / category).images:
        raise DataError(f"{root / category} holds no images; put some there, or leave the category out.")


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(
            f"--data {folder} is neither a folder nor a data set; expected one of {', '.join(DATASETS)} or a folder."
        )


def _require_unpacked(root: Path) -> None:
    if not root.is_dir():
        raise DataError(
            f"{root} does not exist; unpack your copy of MVTec AD there, or use --data synthetic "
            "(its licence does not allow us to ship it)."
        )


def _dataset_of_all(names: Sequence[str], data_dir: Path) -> str:
    if not names:
        return (
            "mvtec_ad"
            if any((data_dir / "mvtec_ad" / name).is_dir() for name in MVTEC_AD_CATEGORIES)
            else "elpv"
        )
    found = {"elpv" if name in elpv.CATEGORIES else "mvtec_ad" for name in names}
    if len(found) > 1:
        raise DataError(
            f"Of {', '.join(names)} some are of MVTec AD and some of ELPV; expected categories of one data set; ask "
            "for them one after the other."
        )
    return found.pop()


def _held_categories(data: str, data_dir: Path) -> tuple[str, ...]:
    """The categories that a data set, or a folder, holds on this machine."""
    if data == "elpv":
        return elpv.CATEGORIES
    root = data_dir / data if data in DATASETS else Path(data)
    if not root.is_dir():
        raise DataError(
            f"{root} is no folder that holds categories; name the categories with --categories, or give one of "
            f"{', '.join(DATASETS)} or a folder with --data."
        )
    if data == "mvtec_ad":
        held = [name for name in MVTEC_AD_CATEGORIES if (root / name).is_dir()]
    elif data == "synthetic":
        held = [path.name for path in folders_of(root) if (path / MARKER).is_file()]
    else:
        if _has_training_folder(root):
            raise DataError(
                f"{root} is one category, as it holds train/good; expected a folder that holds those of "
                "categories."
            )
        held = [path.name for path in folders_of(root) if list_images(path).images]
    left_out = [path.name for path in folders_of(root) if path.name not in held]
    if left_out:
        console.print(
            f"Left out: {', '.join(left_out)} in {root}, no categories of it.", style="yellow", markup=False
        )
    if not held:
        raise DataError(f"{root} holds no category; put the images of each into a folder of its own there.")
    return tuple(held)


def _find(category: str, *, data: str, data_dir: Path) -> CategoryData:
    if data == "auto":
        data = _dataset_of(category, data_dir)
    if data == "mvtec_ad":
        _require_known(category, MVTEC_AD_CATEGORIES, "MVTec AD")
        root = data_dir / "mvtec_ad" / category
        _require_unpacked(root)
        files = read_category(root, dataset=data, category=category)
        fault = _missing_part(files)
        if fault:
            raise DataError(
                f"{files.root} is no complete category of MVTec AD: {fault}; unpack it again, or give it as a folder "
                f"of your own with --data {files.root.parent}."
            )
        return files
    if data == "elpv":
        _require_known(category, elpv.CATEGORIES, "ELPV")
        root = elpv.lay_out(data_dir / "elpv", category=category)
        return read_category(root, dataset=data, category=category)
    if data == "synthetic":
        root = render_category(data_dir / "synthetic", category=category)
        return read_category(root, dataset=data, category=category)
    return _own_folder(Path(data), category)


def _dataset_of(category: str, data_dir: Path) -> str:
    if (data_dir / "mvtec_ad" / category).is_dir():
        return "mvtec_ad"
    if category in elpv.CATEGORIES:
        return "elpv"
    known = (*MVTEC_AD_CATEGORIES, *elpv.CATEGORIES)
    _require_known(
        category, known, "MVTec AD or ELPV", "--data synthetic takes any name, --data FOLDER your images"
    )
    return "synthetic"


def _missing_part(files: CategoryData) -> str | None:
    """What a copy of MVTec AD that was unpacked in part lacks: its measures would be wrong, and nobody would notice."""
    if files.root / "train" / "good" not in files.train_good[0].parents:
        return "train/good is missing"
    kinds = sorted({image.defect for image in files.test})
    if "good" not in kinds or kinds == ["good"]:
        return f"test/ holds {', '.join(kinds) or 'nothing'}, not good and defective images"
    bare = [image.path for image in files.test if image.anomalous and image.mask_path is None]
    if bare:
        first = f"{bare[0].parent.name}/{bare[0].name}"
        return f"{len(bare)} test images have no mask in ground_truth/, {first} among them"
    return None


def _own_folder(folder: Path, category: str) -> CategoryData:
    _require_folder(folder)
    nested = folder / category
    if nested.is_dir():
        return read_category(nested, dataset=_kind_of(nested), category=category)
    categories = [path.name for path in folders_of(folder) if _has_training_folder(path)]
    if categories:
        raise DataError(f"Unknown category {category!r} in {folder}; it holds {', '.join(categories)}.")
    return read_category(folder, dataset=_kind_of(folder), category=category)


def _has_training_folder(folder: Path) -> bool:
    train = find_folder(folder, lambda name: name.lower() == "train")
    return train is not None and find_folder(train, is_good) is not None


def _kind_of(folder: Path) -> str:
    """Rendered images stay `synthetic` whichever way they are given."""
    return "synthetic" if (folder / MARKER).is_file() else "folder"


def _require_known(category: str, known: tuple[str, ...], where: str, otherwise: str = "") -> None:
    if category not in known:
        remedy = f"; {otherwise}" if otherwise else ""
        raise DataError(f"Unknown category {category!r} in {where}; known are {', '.join(known)}{remedy}.")

"""The `synthetic` data set: rendered parts with print, texture, defects and exact masks, for any category.

Laid out in MVTec AD's way, in seconds. `synthetic.json` beside the images says that none was photographed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from model_repository.image_size import ImageSize, height_width, size_text
from train.data.sources.synthetic.defects import DAMAGES, render
from train.data.sources.synthetic.designs import design_part, generator
from train.errors import DataError
from train.support.category_names import check_category_name
from train.support.files import read_json, replacing_folder, write_json

VERSION = 1  # raise it whenever the same settings would give other pixels
MARKER = "synthetic.json"
SMALLEST_IMAGE = 32
DEFECTS: tuple[str, ...] = tuple(DAMAGES)


def render_category(
    root: Path,
    *,
    category: str,
    seed: int = 0,
    image_size: ImageSize = 256,
    n_train: int = 120,
    n_test_good: int = 30,
    n_per_defect: int = 8,
) -> Path:
    """Render a category to `root/category`; do nothing where it was rendered with the same settings before.

    A folder rendered with other settings is replaced.

    Args:
        root: where the data set's categories lie.
        category: any name that can be a folder's; with the seed it decides what the parts look like.
        seed: another seed gives other parts.
        image_size: of the images in pixels, at least `SMALLEST_IMAGE` a side.
        n_train: good images to train on.
        n_test_good: good images to test on.
        n_per_defect: test images of each of `DEFECTS`.

    Returns:
        The category's folder.

    Raises:
        DataError: the name is no safe folder name, the images would be too small, or such a folder exists
            and was not rendered here.
    """
    check_category_name(category)
    if min(height_width(image_size)) < SMALLEST_IMAGE:
        raise DataError(
            f"Image size {size_text(image_size)} is too small to show a defect; expected {SMALLEST_IMAGE} or more."
        )
    settings = {
        "version": VERSION,
        "category": category,
        "seed": seed,
        "image_size": image_size if isinstance(image_size, int) else list(image_size),
        "n_train": n_train,
        "n_test_good": n_test_good,
        "n_per_defect": n_per_defect,
    }
    marker = {"synthetic": True, "note": "Rendered images, not photographs.", "settings": settings}
    target = root / category
    if _marker_of(target) == marker:
        return target

    counts = {"train/good": n_train, "test/good": n_test_good}
    counts |= {f"test/{defect}": n_per_defect for defect in DEFECTS}
    with replacing_folder(target) as new:
        for folder, count in counts.items():
            _render_folder(new, folder, count, category=category, seed=seed, image_size=image_size)
        write_json(new / MARKER, marker)
    return target


def _marker_of(target: Path) -> Any:
    """What the marker of a rendered folder says; None where there is no folder, or its marker is no JSON."""
    if not target.exists():
        return None
    if not (target / MARKER).is_file():
        raise DataError(
            f"{target} exists without {MARKER}, so it was not rendered here; "
            "move it away or choose another category name."
        )
    return read_json(target / MARKER)


def _render_folder(
    root: Path, folder: str, count: int, *, category: str, seed: int, image_size: ImageSize
) -> None:
    design, name = design_part(category, seed), Path(folder).name
    defect = name if name in DEFECTS else None
    image_dir, mask_dir = root / folder, root / "ground_truth" / name
    image_dir.mkdir(parents=True)
    if defect:
        mask_dir.mkdir(parents=True)
    for i in range(count):
        rng = generator(seed, f"{category}/{folder}/{i}")
        image, mask = render(design, rng, image_size=image_size, defect=defect)
        Image.fromarray(image).save(image_dir / f"{i:03d}.png", compress_level=1)
        if defect:
            Image.fromarray(mask).convert("L").save(mask_dir / f"{i:03d}_mask.png")

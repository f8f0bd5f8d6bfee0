"""A category's good images for a run: read, split, and seen by the teacher once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_repository.alignment.reference_picture import Reference
from train.calibration.sharpening import choose_sharpening
from train.config import FitConfig
from train.data.bit_depth import find_bit_depth
from train.data.category import CategoryData, split_good
from train.data.pictures.crops import choose_crops
from train.data.pictures.loaded import LoadedImages
from train.data.pictures.loading import load_images
from train.data.shapes import keeps_aspect
from train.errors import DataError
from train.fitting.features import GoodImages, compute_teacher_features
from train.fitting.gpu.room import choose_place, keep_features
from train.method.backbones import Backbone
from train.method.receptive_field import require_local
from train.method.student import Student
from train.support.devices import Runtime
from train.support.files import require_writable
from train.support.libraries import require_opencv

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class GoodSplit:
    """A category's good images and what the teacher sees in them, split for a run.

    Attributes:
        train: to train on: images, or crops of pictures that keep their own size.
        held_out: likewise, to validate on.
        whole: the images [N, H, W, 3] uint8 as they are judged: those that are trained on, then those held out.
        names: their files' names.
        sharpening: of what the teacher sees, see `choose_sharpening`.
        bit_depth: that they were read with, see `find_bit_depth`.
        keep_aspect: whether they kept their shape, see `keeps_aspect`.
        reference: that they were aligned to; None where they are as they lie.
        shown: of the held-out ones, see `LoadedImages`.
        n_broken: files that could not be read, or aligned.
        fingerprint: of the files, see `CategoryData.fingerprint`.
    """

    train: GoodImages
    held_out: GoodImages
    whole: tuple[Images, Images]
    names: tuple[list[str], list[str]]
    sharpening: float
    bit_depth: int
    keep_aspect: bool
    reference: Reference | None
    shown: NDArray[np.bool_] | None
    n_broken: int
    fingerprint: str

    @property
    def aspect(self) -> Literal["keep", "stretch"]:
        """What becomes of the images' shapes."""
        return "keep" if self.keep_aspect else "stretch"

    def files_in(self, folder: Path) -> list[tuple[Images, list[Path]]]:
        """`whole`, and their files in this folder."""
        return [
            (pixels, [folder / name for name in names])
            for pixels, names in zip(self.whole, self.names, strict=True)
        ]


def _read_good(
    data: CategoryData, teacher: Backbone, *, config: FitConfig, runtime: Runtime
) -> tuple[LoadedImages, int, bool, Reference | None]:
    """A category's good images, and how all of its images are read: bit depth, shape, what they are aligned to."""
    bit_depth = find_bit_depth(data, asked=config.bit_depth)
    keep_aspect = keeps_aspect(data, asked=config.aspect, size=config.image_size)
    images = load_images(
        data.train_good,
        image_size=config.image_size,
        strict=runtime.strict,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        what="good images",
    )
    if config.align == "off":
        return images, bit_depth, keep_aspect, None
    require_opencv()
    from train.calibration.alignment import align_good_images

    images, reference = align_good_images(images, data.train_good, teacher, config=config, runtime=runtime)
    return images, bit_depth, keep_aspect, reference


def load_good(
    data: CategoryData,
    teacher: Backbone,
    student: Student,
    *,
    config: FitConfig,
    scratch_dir: Path,
    runtime: Runtime,
) -> GoodSplit:
    """Read a category's good images, split them, and run the teacher over them once.

    On a GPU the features are kept where they fit beside the training of the student.

    Raises:
        ConfigError: pictures are to keep their size, and a network looks at whole ones.
        DataError: no readable image, or fewer to train on than a batch where smaller batches are left out.
    """
    if config.is_native:
        require_local(config.teacher, teacher)
        require_local(config.student, student.backbone)
    images, bit_depth, keep_aspect, reference = _read_good(data, teacher, config=config, runtime=runtime)
    split = split_good(len(images.pixels), holdout_ratio=config.holdout_ratio, seed=config.seed)
    whole = (images.pixels[split[0]], images.pixels[split[1]])
    names = [[data.train_good[images.readable[index]].name for index in indices] for indices in split]
    learned = [_learned(pixels, of_part, config=config) for pixels, of_part in zip(whole, names, strict=True)]
    (train, _), (held_out, _) = learned
    if config.drop_last and len(train) < config.batch_size:
        raise DataError(
            f"Category {data.category!r} has {len(train)} good images to train on, {len(held_out)} held out; expected "
            f"at least one batch of {config.batch_size}; add {config.batch_size - len(train)} more, or train smaller "
            f"batches: python -m train fit --category {shlex.quote(data.category)} --batch-size {len(train)} and the "
            "options of before."
        )
    require_writable(scratch_dir)
    place, device = None, runtime.torch_device
    sharpening = choose_sharpening(teacher, train, held_out=held_out, config=config, device=device)
    if device.type == "cuda":
        n_images = len(train) + len(held_out)
        place = choose_place(teacher, student, n_images=n_images, config=config, device=device)
    parts = []
    for pixels, file_names in learned:
        features = (
            compute_teacher_features(teacher, pixels, scratch_dir=scratch_dir, device=device)
            if place is None
            else keep_features(place, teacher, pixels, device)
        )
        parts.append(GoodImages(pixels, features, file_names))
    return GoodSplit(
        train=parts[0],
        held_out=parts[1],
        whole=whole,
        names=(names[0], names[1]),
        sharpening=sharpening,
        bit_depth=bit_depth,
        keep_aspect=keep_aspect,
        reference=reference,
        shown=None if images.shown is None else images.shown[split[1]],
        n_broken=len(images.broken),
        fingerprint=data.fingerprint(),
    )


def _learned(pixels: Images, names: list[str], *, config: FitConfig) -> tuple[Images, list[str]]:
    """What is trained on, or validated on, and the file of each: images as they are, or crops of them."""
    if not config.is_native:
        return pixels, names
    crops, places = choose_crops(pixels, size=config.crop_size, seed=config.seed)
    return crops, [names[crop.picture] for crop in places]

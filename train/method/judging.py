"""Teacher and student over many pictures: `compute_distances`, in batches of small ones and in strips of large ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.image_size import n_pixels
from model_repository.picture_strips import in_strips
from train.method.backbones import Backbone
from train.method.receptive_field import chain_margin
from train.method.student import Student
from train.support.arrays import FloatArray, require_finite
from train.support.devices import memory_errors
from train.support.progress import progress_bar

TEST_BATCH_SIZE = 16  # images of up to TEST_PIXELS, fewer of larger ones
TEST_PIXELS = 256**2
STRIP_PIXELS = 6_000_000  # of a strip with its margins, in which larger images are computed


@memory_errors("free some of it (nvidia-smi shows who holds a GPU's), or use --device cpu")
def compute_distances(
    teacher: Backbone,
    student: Student,
    images: NDArray[np.uint8],
    *,
    scale: float,
    device: torch.device,
    what: str,
) -> list[FloatArray]:
    """Distance maps [N, h, w] float32 a stage of images [N, H, W, 3] uint8, as in the testing process (Section 3.4).

    Both networks are on the device and in evaluation mode; `scale` is that of `train.method.distances.distance_map`,
    `what` names the progress bar.

    Raises:
        NotFiniteError: a distance is not finite. An image with such a distance would count as good.
        ConfigError: the device's memory does not suffice.
    """

    def compute(pixels: NDArray[np.uint8]) -> list[FloatArray]:
        image = torch.from_numpy(pixels).to(device)
        distances = student.distances(image, teacher(image), scale=scale)
        return [distance.cpu().numpy() for distance in distances]

    batches = []
    with torch.inference_mode(), progress_bar(what, len(images)) as bar:
        at_once = max(1, TEST_BATCH_SIZE * TEST_PIXELS // max(TEST_PIXELS, n_pixels(images.shape[1:3])))
        for start in range(0, len(images), at_once):
            batch = images[start : start + at_once]
            batches.append(strip_by_strip(compute, batch, teacher=teacher, student=student))
            bar.advance(len(batch))
    stages = [np.concatenate(stage) for stage in zip(*batches, strict=True)]
    for stage in stages:
        require_finite(
            stage,
            what=f"{what}: the distances between teacher and student",
            remedy="train again, with a lower --learning-rate or --mixed-precision off",
        )
    return stages


def strip_by_strip(
    compute: Callable[[NDArray[np.uint8]], list[FloatArray]],
    images: NDArray[np.uint8],
    *,
    teacher: Backbone,
    student: Student,
) -> list[FloatArray]:
    """What both networks give of images [N, H, W, 3] uint8; those of more than `STRIP_PIXELS` are seen in strips.

    `compute` gives maps [N, h, w] or [N, C, h, w], at most as far as the distances look.
    """
    margin = chain_margin(teacher, student) if n_pixels(images.shape[1:3]) > STRIP_PIXELS else 0
    return in_strips(compute, images, margin=margin, pixels=STRIP_PIXELS)

"""A GPU's memory: what the training takes of it, and where images and teacher features find room beside that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model_repository.image_size import ImageSize, height_width, n_pixels, size_text, stage_shape
from train.config import FitConfig
from train.errors import ConfigError
from train.fitting.features import MEMORY_SHARE, Batch, feature_shapes, gib
from train.fitting.gpu.stores import DeviceFeatures, GpuFeatures, PinnedFeatures, RecomputedFeatures
from train.fitting.loop import masked_regeneration_loss
from train.fitting.preparation import set_training_mode
from train.method.backbones import STRIDES, Backbone
from train.method.student import Student
from train.support.memory import available_memory
from train.support.progress import console

Place = Literal["device", "pinned", "recomputed"]
STORES: dict[Place, type[GpuFeatures]] = {
    "device": DeviceFeatures,
    "pinned": PinnedFeatures,
    "recomputed": RecomputedFeatures,
}
TRIED_BATCHES = (2, 4)  # images; two steps tell what each further image takes
# Copies of all weights beside themselves and their gradients: Adam's two moments, and the state before unseen steps.
COPIES_OF_WEIGHTS = 5
MARGIN = 1.2  # on what was measured: convolutions that are tried out take memory of their own
RESERVE = 1 << 29  # bytes that are left alone


@dataclass(frozen=True)
class TrainingMemory:
    """What the training takes of a GPU's memory, bytes.

    Attributes:
        fixed: whatever the batch.
        an_image: more for each image of a batch.
    """

    fixed: int
    an_image: int

    def of_batch(self, batch_size: int) -> int:
        """Bytes that batches of that size take, with a margin."""
        return RESERVE + int(MARGIN * (self.fixed + batch_size * self.an_image))

    def largest_batch(self, free: int) -> int:
        """The largest batch for which that many bytes suffice; 0 for none."""
        return max(0, int(((free - RESERVE) / MARGIN - self.fixed) // max(1, self.an_image)))


def choose_place(
    teacher: Backbone, student: Student, *, n_images: int, config: FitConfig, device: torch.device
) -> Place:
    """Where images and teacher features are kept while a GPU trains on them; it is told, with the memory that is left.

    Args:
        teacher: on the device.
        student: on the device, not trained yet.
        n_images: all of those that features are computed of.
        config: of the run.
        device: a GPU.

    Raises:
        ConfigError: its memory does not suffice for the training; the batch that would fit is named.
    """
    with torch.cuda.device(device):
        need = measure_training(student, teacher.channels, config=config, device=device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    require_memory(need, free=free, total=total, others=others, config=config)
    if _in_use(others, total):
        _tell(f"The GPU is in use: other processes hold {gib(others)} of its memory, and share its time.")
    return place_of(
        bytes_of(teacher, n_images=n_images, image_size=config.training_size),
        free_on_device=free,
        free_in_machine=available_memory(),
        training=need.of_batch(config.batch_size),
    )


def place_of(sizes: list[int], *, free_on_device: int, free_in_machine: int, training: int) -> Place:
    """The first place that suffices; it is told.

    Args:
        sizes: bytes of images and of each stage's features.
        free_on_device: bytes of the GPU's memory that are free.
        free_in_machine: bytes of the machine's.
        training: bytes of the GPU's that the training takes.
    """
    n_bytes = sum(sizes)
    if n_bytes + training <= free_on_device:
        left = free_on_device - n_bytes
        _tell(
            f"Images and teacher features, {gib(n_bytes)}, are kept on the GPU; {gib(left)} of its memory are left for "
            f"the training, which takes about {gib(training)}."
        )
        return "device"
    why = (
        f"Images and teacher features, {gib(n_bytes)}, do not fit on the GPU beside the training: of its memory "
        f"{gib(free_on_device)} are free, and the training takes about {gib(training)}"
    )
    # Pinned memory is given out in powers of two.
    pinned = sum(1 << (size - 1).bit_length() for size in sizes)
    if pinned <= MEMORY_SHARE * free_in_machine:
        _tell(
            f"{why}. They are kept in pinned memory; {gib(free_in_machine - pinned)} of the machine's are left."
        )
        return "pinned"
    _tell(
        f"{why}; pinned, they take {gib(pinned)} of the machine's {gib(free_in_machine)}, more than "
        f"{MEMORY_SHARE:.0%}. So the teacher runs again at each step, which makes it slower."
    )
    return "recomputed"


def keep_features(
    place: Place, teacher: Backbone, images: NDArray[np.uint8], device: torch.device
) -> GpuFeatures:
    """Run the teacher over images [N, H, W, 3] uint8, and keep what it sees at that place if it can be had.

    Raises:
        TrainingError: a feature is not finite.
    """
    try:
        return STORES[place](teacher, images, device)
    except (MemoryError, RuntimeError) as error:
        if place == "recomputed" or "out of memory" not in str(error):
            raise
    _tell(
        "The memory for the teacher's features cannot be had after all: the teacher runs again at each step."
    )
    torch.cuda.empty_cache()
    return RecomputedFeatures(teacher, images, device)


def bytes_of(teacher: Backbone, *, n_images: int, image_size: ImageSize) -> list[int]:
    """Of the images, and of each stage's features."""
    shapes = feature_shapes(teacher, n_images=n_images, image_size=image_size)
    return [n_images * n_pixels(image_size) * 3, *(4 * int(np.prod(shape)) for shape in shapes)]


def require_memory(need: TrainingMemory, *, free: int, total: int, others: int, config: FitConfig) -> None:
    """Make sure that a GPU's free bytes can suffice for the training.

    Raises:
        ConfigError: they cannot; what other processes hold is told, and the batch that would fit.
    """
    takes = need.fixed + config.batch_size * need.an_image
    if takes <= free:
        return
    in_use = f", other processes hold {gib(others)} (look at nvidia-smi)" if _in_use(others, total) else ""
    fitting = need.largest_batch(free)
    remedy = f"--batch-size {fitting} would fit" if fitting else "take a smaller --image-size or backbone"
    raise ConfigError(
        f"The GPU's memory does not suffice: training with batches of {config.batch_size} images of "
        f"{size_text(config.training_size)} px takes at least {gib(takes)}, and {gib(free)} of {gib(total)} are "
        f"free{in_use}; {remedy}."
    )


def measure_training(
    student: Student,
    teacher_channels: list[int],
    *,
    config: FitConfig,
    device: torch.device,
    peak_of: Callable[[Callable[[], None]], int] | None = None,
) -> TrainingMemory:
    """Run small steps forward and back, and leave the student as it was.

    Args:
        student: on the device, not trained yet.
        teacher_channels: of each stage.
        config: of the run.
        device: where.
        peak_of: runs a step and gives the most bytes that it took at a time; None for a GPU's own count.
    """

    def bytes_of_step(n_images: int) -> int:
        batch = _drawn_batch(n_images, teacher_channels, config=config, device=device)

        def step() -> None:
            masks = torch.Generator(device).manual_seed(0)
            masked_regeneration_loss(student, batch, masks, config=config).backward()  # type: ignore[no-untyped-call]

        return (peak_of or _peak_on_gpu)(step)

    buffers = [buffer.clone() for buffer in student.buffers()]
    set_training_mode(student, freeze_batchnorm=config.freeze_batchnorm)
    peaks = []
    for n_images in TRIED_BATCHES:
        peaks.append(bytes_of_step(n_images))
        student.zero_grad()
        for buffer, before in zip(student.buffers(), buffers, strict=True):
            buffer.copy_(before)
    few, many = TRIED_BATCHES
    an_image = max(0, peaks[1] - peaks[0]) // (many - few)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())
    return TrainingMemory(max(0, peaks[0] - few * an_image) + COPIES_OF_WEIGHTS * weights, an_image)


def _drawn_batch(
    n_images: int, teacher_channels: list[int], *, config: FitConfig, device: torch.device
) -> Batch:
    """Gray images and features of ones, in the shapes of a batch."""
    size = config.training_size
    features = [
        torch.ones(n_images, *stage_shape(size, stride), channels, device=device).permute(0, 3, 1, 2)
        for stride, channels in zip(STRIDES, teacher_channels, strict=True)
    ]
    image = torch.full((n_images, *height_width(size), 3), 128, dtype=torch.uint8, device=device)
    return Batch(np.arange(n_images), image, features)


def _peak_on_gpu(step: Callable[[], None]) -> int:
    """Bytes that a step takes at most on the current GPU, beyond what is taken already."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _in_use(others: int, total: int) -> bool:
    """Whether other processes hold more of a GPU's memory than this one's driver takes."""
    return others > total // 10


def _tell(sentence: str) -> None:
    console.print(sentence, markup=False)

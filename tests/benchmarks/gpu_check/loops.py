"""Images/s of two training loops without this project's: the first that one would write, and a good one.

What `train fit` itself does is measured in whole runs, see `fits`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from time import perf_counter

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model_repository.image_size import height_width
from tests.benchmarks.gpu_check.work import Asked, Results, tell_memory, wait_for
from train.config import FitConfig
from train.fitting.masked_loss import compiler_fault
from train.method.backbones import Backbone
from train.method.student import Student, build_teacher_and_student

MOST_STEPS, MOST_SECONDS = 40, 6.0
Features = Callable[[Tensor], list[Tensor]]


def measure(asked: Asked, results: Results, *, preset: str) -> None:
    """The plain loop, then the good one, each with new networks; and the FLOPs of a step."""
    config = asked.config(preset)
    results.put(batch_size=config.batch_size, image_size=config.image_size, weights=config.weights)
    results.put(**gflop_an_image(config))
    torch.backends.cudnn.benchmark = True
    results.put(plain_images_per_s=largest_batch(plain_loop, config, asked, results, what="the plain loop"))
    fault = compiler_fault(asked.torch_device) if asked.device == "cuda" else "on a CPU it takes minutes"
    results.put(good_is_compiled=fault is None, **({} if fault is None else {"not_compiled": fault}))
    good = functools.partial(good_loop, compiled=fault is None)
    results.put(good_images_per_s=largest_batch(good, config, asked, results, what="the good loop"))


def gflop_an_image(config: FitConfig) -> dict[str, float]:
    """GFLOP of an image through the teacher, and forwards and backwards through the student."""
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    image = torch.zeros(1, 3, *height_width(config.image_size))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        teacher.body(image)
    with torch.no_grad(), FlopCounterMode(display=False) as student_counter:
        student.regenerate(student.backbone.body(image))
    return {
        "teacher_gflop": counter.get_total_flops() / 1e9,
        # Backwards there are two products for each one forwards.
        "student_training_gflop": 3 * student_counter.get_total_flops() / 1e9,
    }


def largest_batch(
    loop: Callable[[FitConfig, Asked], float], config: FitConfig, asked: Asked, results: Results, *, what: str
) -> float | None:
    """Images/s with the preset's batch; where the card's memory is too small, that is told with the batch that fits."""
    batch, images_per_s = config.batch_size, None
    while batch and images_per_s is None:
        try:
            images_per_s = loop(config.model_copy(update={"batch_size": batch}), asked)
        except torch.OutOfMemoryError:
            batch //= 2
    if batch < config.batch_size:
        tell_memory(results, what, batch=config.batch_size, fits=batch)
    return images_per_s


def plain_loop(config: FitConfig, asked: Asked) -> float:
    """The teacher in each step, float32, the default layout, pixels from the host, the loss looked at."""
    device = asked.torch_device
    teacher, student = networks(config, device, channels_last=False)
    optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate)
    host = torch.randint(0, 256, (config.batch_size, *height_width(config.image_size), 3), dtype=torch.uint8)
    theirs, ours = features_of(teacher), features_of(student.backbone)

    def step() -> None:
        image = host.to(device)
        with torch.no_grad():
            teacher_features = theirs(image)
        masked = hide_half(ours(image))
        loss = student.loss(student.regenerate(masked), teacher_features, scale=config.distance_scale)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return timed(step, config, asked)


def good_loop(config: FitConfig, asked: Asked, *, compiled: bool) -> float:
    """The same with autocast, channels_last, compiled networks and images that lie on the card."""
    device = asked.torch_device
    teacher, student = networks(config, device, channels_last=True)
    optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, fused=True)
    shape = (config.batch_size, *height_width(config.image_size), 3)
    image = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if compiled:
        for module in (teacher.body, student.backbone.body, *student.generation_blocks):
            module.compile()
    theirs, ours = features_of(teacher), features_of(student.backbone)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on_gpu):
            with torch.no_grad():
                teacher_features = theirs(image)
            regenerated = student.regenerate(hide_half(ours(image)))
        in_float32 = [
            [feature.float() for feature in features] for features in (regenerated, teacher_features)
        ]
        loss = student.loss(*in_float32, scale=config.distance_scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return timed(step, config, asked)


def networks(config: FitConfig, device: torch.device, *, channels_last: bool) -> tuple[Backbone, Student]:
    """New networks; residuals are standardised by what one picture of noise gives."""
    teacher, student, _ = build_teacher_and_student(config, weights_dir=None)
    noise = torch.randint(0, 256, (1, *height_width(config.image_size), 3), dtype=torch.uint8)
    with torch.no_grad():
        features = teacher(noise)
        student.set_teacher_statistics(
            [feature.mean(dim=(0, 2, 3)) for feature in features],
            [feature.std(dim=(0, 2, 3)) for feature in features],
        )
    student.train()
    for network in (teacher, student):
        network.to(device)
        if channels_last:
            network.to(memory_format=torch.channels_last)
    return teacher, student


def features_of(backbone: Backbone) -> Features:
    """Images [B, S, S, 3] uint8 on the device to features."""

    def features(image: Tensor) -> list[Tensor]:
        pixels = image.float().permute(0, 3, 1, 2)
        return list(backbone.body((pixels - backbone.mean) / backbone.std))

    return features


def hide_half(features: Iterable[Tensor]) -> list[Tensor]:
    """Half of the positions set to 0, drawn on the device."""
    return [
        feature * (torch.rand(feature.shape[-2:], device=feature.device) >= 0.5).to(feature.dtype)
        for feature in features
    ]


def timed(step: Callable[[], None], config: FitConfig, asked: Asked) -> float:
    """Images/s of some steps, after a few to warm up and compile."""
    device = asked.torch_device
    for _ in range(1 if asked.tiny else 4):
        step()
    wait_for(device)
    started, n_steps = perf_counter(), 0
    while n_steps < (2 if asked.tiny else MOST_STEPS) and perf_counter() - started < MOST_SECONDS:
        step()
        n_steps += 1
    wait_for(device)
    return config.batch_size * n_steps / (perf_counter() - started)

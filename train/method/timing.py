"""How long teacher and student take for an image, on this machine and in PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from model_repository.image_size import height_width
from train.config import FitConfig
from train.method.student import build_teacher_and_student

WARM_UP_RUNS = 3


def time_pair(config: FitConfig, *, device: torch.device, repeats: int) -> tuple[float, float]:
    """Median milliseconds of the student, and of teacher, student and distance maps, for one image."""
    untrained = config.model_copy(update={"weights": "random", "student_weights": "pretrained"})
    teacher, student, _ = build_teacher_and_student(untrained, weights_dir=None)
    for network in (teacher, student.eval()):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randint(256, (1, *height_width(config.training_size), 3), dtype=torch.uint8).to(device)

    def pair() -> list[Tensor]:
        return student.distances(image, teacher(image), scale=config.distance_scale)

    def finished(run: Callable[[], object]) -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        student_ms = median_ms(lambda: finished(lambda: student(image)), repeats=repeats)
        return student_ms, median_ms(lambda: finished(pair), repeats=repeats)


def median_ms(
    run: Callable[[], None], *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median time of a call in milliseconds, after a few calls to warm up."""
    for _ in range(WARM_UP_RUNS):
        run()
    times = []
    for _ in range(repeats):
        started = clock()
        run()
        times.append(clock() - started)
    return 1e3 * statistics.median(times)

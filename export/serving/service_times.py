"""How long each step of a category takes for one image on this machine, without any waiting."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import PublishError
from export.graphs.chain import open_session
from export.manifest import Manifest
from export.tensors import STUDENT_OUTPUTS, TEACHER_OUTPUTS
from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances, judge
from model_repository.foreground.foreground_mask import foreground_mask
from model_repository.image_decoder.image_decoding import decode_image, resize_image

WARM_UP_RUNS = 3
RUNS = 15
HOP_MS = 0.3  # of each step: into a model's process and back, as measured (docs/measurements/serving.md)
ENCODED_SIZE = 1024  # side of the JPEG that is decoded, pixels


def time_steps(
    build: Path, manifest: Manifest, *, threads: int, on_gpu: bool, stated_ms: Mapping[str, float]
) -> dict[str, float]:
    """Milliseconds of each step: `decoder`, `foreground` where there is one, `teacher`, `student`, `fusion`.

    The graphs run in ONNX Runtime as they are served; decoder, `threshold` foreground and fusion are the very functions
    that are served. Each gets `HOP_MS` more for the way there and back. Medians of RUNS runs. What a GPU computes
    cannot be timed here, and is left out unless it is stated.

    Args:
        build: the build's folder.
        manifest: of the build.
        threads: of a run.
        on_gpu: whether a GPU computes the graphs.
        stated_ms: of steps whose time is known; they are not timed.

    Raises:
        PublishError: a step that there is not.
    """
    steps = _steps(build, manifest, threads=threads)
    if unknown := sorted(set(stated_ms) - set(steps)):
        raise PublishError(
            f"{manifest.category} has no step {', '.join(unknown)}; expected --service-ms of {', '.join(steps)}."
        )
    graphs = {"teacher", "student", *({"foreground"} if manifest.config.foreground == "sam" else ())}
    return {
        step: round(stated_ms[step] if step in stated_ms else _median_ms(opened) + HOP_MS, 3)
        for step, opened in steps.items()
        if step in stated_ms or not (on_gpu and step in graphs)
    }


def _steps(build: Path, manifest: Manifest, *, threads: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """What opens each step, and gives what runs it once; in the order in which an image goes through them."""
    size = manifest.config.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    maps = [np.zeros((1, size // stride, size // stride), np.float32) for stride in (4, 8, 16)]
    foreground = manifest.config.foreground

    def decoder() -> Callable[[], object]:
        encoded = _jpeg()
        return lambda: resize_image(decode_image(encoded), size)

    def threshold() -> Callable[[], object]:
        return lambda: foreground_mask(image)

    def sam() -> Callable[[], object]:
        session = open_session(build / "foreground.onnx", threads=threads, stop_spinning=True)
        return lambda: session.run(["foreground"], {"image": image})

    def teacher() -> Callable[[], object]:
        session = open_session(build / "teacher.onnx", threads=threads, stop_spinning=True)
        return lambda: session.run(list(TEACHER_OUTPUTS), {"image": image})

    def student() -> Callable[[], object]:
        session = open_session(build / "student.onnx", threads=threads, stop_spinning=True)
        feed = {entry.name: _zeros(entry) for entry in session.get_inputs()}
        return lambda: session.run(list(STUDENT_OUTPUTS), feed)

    def fusion() -> Callable[[], object]:
        calibration = Calibration.load(build / "calibration.json")
        return lambda: judge(fuse_distances(maps, calibration.fusion), calibration)

    masking = {} if foreground == "none" else {"foreground": sam if foreground == "sam" else threshold}
    return {"decoder": decoder, **masking, "teacher": teacher, "student": student, "fusion": fusion}


def _median_ms(opened: Callable[[], Callable[[], object]]) -> float:
    run = opened()
    for _ in range(WARM_UP_RUNS):
        run()
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def _zeros(entry: Any) -> NDArray[Any]:
    """One image's worth of a graph's input; what it holds does not change the time."""
    types = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    return np.zeros((1, *entry.shape[1:]), types[entry.type])


def _jpeg() -> bytes:
    """A JPEG of ENCODED_SIZE pixels a side with soft structure, as of a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((ENCODED_SIZE, ENCODED_SIZE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()

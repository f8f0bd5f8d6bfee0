"""How long each step of a category takes for one image on this machine when nothing waits."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import PublishError
from export.graphs.chain import open_session
from export.manifest import Manifest
from export.serving.backbones import Platform
from export.serving.native_pictures import usual_size
from export.tensors import STRIDES, feature_specs, image_spec
from model_repository.alignment.reference_picture import FILE, Reference
from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances, judge
from model_repository.foreground.foreground_mask import foreground_mask
from model_repository.image_decoder.image_decoding import decode_image, resize_image
from model_repository.image_size import height_width, stage_shape
from train.support.cores import usable_cores

WARM_UP_RUNS = 3
RUNS = 15
HOP_MS = (
    0.3  # of each step: a request's way into the model's process and back, see docs/measurements/serving.md
)
ENCODED_SIZE = 1024  # side of the JPEG that is decoded, pixels

RunStep = Callable[[], object]
OpenStep = Callable[[], RunStep]  # loads a step and returns what runs it once


def time_steps(
    build: Path,
    manifest: Manifest,
    platform: Platform,
    *,
    stated_ms: Mapping[str, float],
) -> dict[str, float]:
    """Milliseconds of `decoder`, `alignment` and `foreground` where there are any, `teacher`, `student` and `fusion`.

    The graphs run in ONNX Runtime with the threads that they are served with. Decoder, `threshold` foreground and
    fusion are the functions that are served. Each time is the median of RUNS runs and HOP_MS. A step that a GPU
    computes cannot be timed here; it is left out unless its time is stated.

    Args:
        build: the build's folder.
        manifest: of the build.
        platform: what will run the backbones.
        stated_ms: times of steps; these steps are not timed.

    Raises:
        PublishError: a time is stated for a step that the category does not have.
    """
    threads = min(platform.concurrency(shared=False).threads, usable_cores())
    steps = _steps(build, manifest, threads=threads)
    if unknown := sorted(set(stated_ms) - set(steps)):
        raise PublishError(
            f"{manifest.category} has no step {', '.join(unknown)}; expected --service-ms of {', '.join(steps)}."
        )
    graphs = {"teacher", "student", *({"foreground"} if manifest.config.foreground == "sam" else ())}
    return {
        step: round(stated_ms[step] if step in stated_ms else _median_ms(open_step()) + HOP_MS, 3)
        for step, open_step in steps.items()
        if step in stated_ms or not (platform.on_gpu and step in graphs)
    }


def _steps(build: Path, manifest: Manifest, *, threads: int) -> dict[str, OpenStep]:
    """The steps in the order in which an image goes through them."""
    size = usual_size(manifest)
    maps = [np.zeros((1, *stage_shape(size, stride)), np.float32) for stride in STRIDES]
    keep_aspect = manifest.provenance.keep_aspect

    def decoder() -> RunStep:
        encoded = _jpeg()
        return lambda: resize_image(decode_image(encoded), size, keep_aspect=keep_aspect)

    def alignment() -> RunStep:
        from model_repository.alignment.picture_alignment import Aligner, restore_maps  # it loads OpenCV

        aligner = Aligner(Reference.load(build / FILE))
        picture, anomaly_map = aligner.reference.picture, np.zeros((1, *height_width(size)), np.float32)
        return lambda: restore_maps(anomaly_map, aligner.nearest(picture).motion[None])

    def threshold() -> RunStep:
        image = np.random.default_rng(0).integers(0, 256, (1, *height_width(size), 3), np.uint8)
        return lambda: foreground_mask(image)

    def graph(name: str) -> RunStep:
        session = open_session(build / f"{name}.onnx", threads=threads, stop_spinning=True)
        outputs = [entry.name for entry in session.get_outputs()]
        shapes = {
            spec.name: spec.shape
            for spec in [image_spec(size), *feature_specs(size, manifest.teacher_channels)]
        }
        feed = {entry.name: _zeros(entry, shapes[entry.name]) for entry in session.get_inputs()}
        return lambda: session.run(outputs, feed)

    def fusion() -> RunStep:
        calibration = Calibration.load(build / "calibration.json")
        return lambda: judge(fuse_distances(maps, calibration.fusion), calibration)

    removers: dict[str, OpenStep] = {"sam": partial(graph, "foreground"), "threshold": threshold}
    method = manifest.config.foreground
    return {
        "decoder": decoder,
        **({"alignment": alignment} if manifest.provenance.aligned else {}),
        **({"foreground": removers[method]} if method != "none" else {}),
        "teacher": partial(graph, "teacher"),
        "student": partial(graph, "student"),
        "fusion": fusion,
    }


def _median_ms(run: RunStep) -> float:
    for _ in range(WARM_UP_RUNS):
        run()
    times_ms = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        times_ms.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times_ms)


def _zeros(entry: Any, shape: Sequence[int]) -> NDArray[Any]:
    """An input of a graph for one image, all zeros: its values do not change the time."""
    types = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    return np.zeros((1, *shape), types[entry.type])


def _jpeg() -> bytes:
    """A JPEG of ENCODED_SIZE pixels a side with soft structure, as of a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((ENCODED_SIZE, ENCODED_SIZE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()

"""What images a second ask of the fusion, the batches that a GPU is given, and what goes with both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from export.errors import PublishError
from export.serving.queues import DEFAULT_SIZE
from export.serving.steps import LEAST_INSTANCES, STEP_BATCH_SIZE
from export.tensors import STRIDES
from model_repository.distance_fusion.map_fusion import Calibration, fuse_distances, judge
from model_repository.image_size import NATIVE, ImageSize, n_pixels, stage_shape

CPU_BATCH = 8
GPU_PIXELS = 32 * 256 * 256  # of the images in a batch together: fewer leave units of a large GPU idle
QUEUED_BATCHES = 4  # a batch that ends at one step arrives at the next as so many single requests at once
HEADROOM = 1.25  # of the fusion's processes: images do not come evenly
TIMED_BATCH, TIMED_RUNS = 8, 9
CAMERA_SIDE = 2048  # pixels
HOP_MS = 0.3  # of a request into a process and back, see docs/measurements/serving.md
GRPC_BYTES = 4 << 20  # that a gRPC client takes in an answer, unless told otherwise
CONTAINER_SHM_BYTES = 64 << 20


def chosen_batch(image_size: ImageSize, *, on_gpu: bool, engine_batches: Iterable[int] = ()) -> int:
    """Images a batch, at most, where none are stated: 8 on a CPU; on a GPU as many as fill it, and the engines take.

    Of images that keep their own size one, as they cannot be put together.
    """
    if image_size == NATIVE:
        return 1
    if not on_gpu:
        return CPU_BATCH
    filling = max(CPU_BATCH, min(STEP_BATCH_SIZE, GPU_PIXELS // n_pixels(image_size)))
    return min([filling, *engine_batches])


def queue_size(largest_batch: int) -> int:
    """Requests that may wait at a step: whole batches arrive from the step before."""
    return max(DEFAULT_SIZE, QUEUED_BATCHES * largest_batch)


@dataclass(frozen=True)
class FusionLoad:
    """What a category asks of the fusion, which all categories share.

    Attributes:
        images_per_s: that the server is to judge of it.
        processes: of the fusion that these keep busy, each on a core.
    """

    images_per_s: float
    processes: float

    def to_parameters(self) -> dict[str, str]:
        """As parameters of the ensembles; publishing another category reads them there."""
        return {"images_per_s": f"{self.images_per_s:g}", "fusion_processes": f"{self.processes:.4g}"}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> FusionLoad | None:
        """What `to_parameters` wrote; None where there is none.

        Raises:
            PublishError: they are no numbers.
        """
        if "fusion_processes" not in parameters:
            return None
        try:
            load = cls(float(parameters.get("images_per_s", "")), float(parameters["fusion_processes"]))
        except ValueError:
            load = cls(math.nan, math.nan)
        if not 0 <= load.processes < math.inf:
            raise PublishError(
                f"A published category has fusion_processes {parameters['fusion_processes']!r}; expected a number "
                "of at least 0; publish that category again."
            )
        return load


def measure_load(images_per_s: float, calibration: Calibration) -> FusionLoad:
    """Time the fusion with maps on this machine, on one thread as the server's processes have.

    Of images that keep their own size they are those of a camera of 4 megapixels.
    """
    native = calibration.fusion.is_native
    size, batch = (CAMERA_SIDE, 1) if native else (calibration.image_size, TIMED_BATCH)
    maps = [np.ones((batch, *stage_shape(size, stride)), np.float32) for stride in STRIDES]
    times_ms = []
    with threadpool_limits(1):
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            judge(fuse_distances(maps, calibration.fusion), calibration)
            times_ms.append(1e3 * (time.perf_counter() - started))
    image_ms = (statistics.median(times_ms) + HOP_MS) / batch
    return FusionLoad(images_per_s, HEADROOM * images_per_s * image_ms / 1e3)


def fusion_instances(loads: Iterable[FusionLoad]) -> int:
    """Instances of the fusion for all categories together."""
    return max(LEAST_INSTANCES, math.ceil(sum(load.processes for load in loads)))


def remarks(
    *,
    fusion: int,
    cores: int,
    batch: int,
    image_bytes: int,
    backbones: int,
    on_gpu: bool,
    engine_batch: int | None,
) -> list[str]:
    """What who starts the server has to know of these numbers, a sentence each.

    Args:
        fusion: its instances.
        cores: of this machine.
        batch: images, at most.
        image_bytes: of an image at the fusion, distance maps and verdict with maps.
        backbones: instances of each backbone.
        on_gpu: whether GPUs compute them.
        engine_batch: that the engines take, where they take fewer than a GPU wants; else None.
    """
    sentences = []
    if fusion > max(cores, LEAST_INSTANCES):
        sentences.append(
            f"the fusion has {fusion} instances for the images that were stated, and this machine {cores} cores: it "
            "will not keep up"
        )
    if on_gpu:
        sentences.append(
            f"Triton starts {backbones} instances of each backbone on every GPU that it sees, and every other step on "
            "the CPU alone"
        )
    if engine_batch is not None:
        sentences.append(
            f"the engines take batches of {engine_batch}, and more fill a large GPU: build them with --max-batch"
        )
    if batch * image_bytes > GRPC_BYTES:
        sentences.append(
            f"an answer of {batch} images with maps has {batch * image_bytes / 2**20:.0f} MiB; a gRPC client that is "
            "not ours takes 4 unless its limit is raised"
        )
    if (shm := fusion * batch * image_bytes) > CONTAINER_SHM_BYTES // 2:
        sentences.append(
            f"the fusion's processes may take {shm / 2**20:.0f} MiB of /dev/shm, where a container has 64 unless "
            "started with --shm-size"
        )
    return sentences

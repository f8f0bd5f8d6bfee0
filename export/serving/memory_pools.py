"""How large Triton's two memory pools must be for features to stay on the GPU between teacher and student.

Triton allocates the tensors between an ensemble's steps in a pool of GPU memory. When that is full it uses a pool of
pinned host memory, then plain memory (`src/memory.cc` of triton-inference-server/core). See docs/guides/gpu.md.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class MemoryPools:
    """Sizes to start a server with, bytes.

    Attributes:
        cuda_bytes: on each GPU, for features.
        pinned_bytes: on the host, for tensors on their way to and from a GPU.
    """

    cuda_bytes: int
    pinned_bytes: int

    def to_parameters(self) -> dict[str, str]:
        """The sizes as parameters of the ensembles, where `deploy` reads them."""
        return {"cuda_pool_bytes": str(self.cuda_bytes), "pinned_pool_bytes": str(self.pinned_bytes)}


def size_pools(
    *,
    image_bytes: int,
    feature_bytes: int,
    distance_bytes: int,
    max_batch_size: int,
    instances: int,
    queue_size: int,
) -> MemoryPools:
    """Pools for all images of a category that can be in flight, in whole MiB.

    An image's features live from the teacher's run that writes them to the end of the student's run that reads them.
    So features exist of every image in a running batch of either model and of every image that waits for the student.
    Pixels are copied to both models, distance maps back from the student.

    Args:
        image_bytes: of an image's pixels.
        feature_bytes: of an image's features.
        distance_bytes: of an image's distance maps and release id.
        max_batch_size: images a batch.
        instances: of each of the two models.
        queue_size: requests of one image that may wait for the student.
    """
    running = 2 * instances * max_batch_size
    features = (running + queue_size) * feature_bytes
    crossing = running * image_bytes + instances * max_batch_size * distance_bytes
    return MemoryPools(cuda_bytes=_whole_mib(features), pinned_bytes=_whole_mib(crossing))


def _whole_mib(n_bytes: int) -> int:
    return -(-n_bytes // MIB) * MIB

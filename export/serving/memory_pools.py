"""How large Triton's two memory pools must be, so that features stay on the GPU between teacher and student.

Triton takes the tensors between an ensemble's steps out of a pool of GPU memory, where that is full out of one of
pinned host memory, then out of plain memory (`src/memory.cc` of triton-inference-server/core). See docs/guides/gpu.md.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class MemoryPools:
    """Sizes to start a server with, bytes.

    Attributes:
        cuda_bytes: of each GPU, for features.
        pinned_bytes: of the host, for what crosses to and from a GPU.
    """

    cuda_bytes: int
    pinned_bytes: int

    def to_parameters(self) -> dict[str, str]:
        """As the ensembles keep them; `deploy` reads them there."""
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
    """Pools that hold what a category can have in flight; rounded up to whole MiB.

    An image's features live from the teacher's run that writes them to the end of the student's run that reads them:
    in a batch of each instance of both, and of the images that wait for the student. Its pixels are copied to
    both models, and its distance maps back.

    Args:
        image_bytes: of an image's pixels.
        feature_bytes: of an image's features.
        distance_bytes: of an image's distance maps and release id.
        max_batch_size: images a batch.
        instances: of each of the two models.
        queue_size: requests that may wait for the student, of one image each.
    """
    running = 2 * instances * max_batch_size
    features = (running + queue_size) * feature_bytes
    crossing = running * image_bytes + instances * max_batch_size * distance_bytes
    return MemoryPools(cuda_bytes=_whole_mib(features), pinned_bytes=_whole_mib(crossing))


def _whole_mib(n_bytes: int) -> int:
    return -(-n_bytes // MIB) * MIB

"""Triton's memory pools, by hand, and as the ensembles keep them for the server's start."""

from __future__ import annotations

from pathlib import Path

from deploy.repository import memory_pools
from export.serving.backbones import Platform
from export.serving.memory_pools import MIB, MemoryPools, size_pools
from export.tensors import distance_specs, feature_specs, image_bytes, image_spec
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny

WIDE_RESNET = (256, 512, 1024)


def test_the_papers_pair() -> None:
    features = image_bytes(feature_specs(256, WIDE_RESNET))
    assert features == 4 * (256 * 64 * 64 + 512 * 32 * 32 + 1024 * 16 * 16) == 7_340_032
    assert image_bytes(feature_specs(256, WIDE_RESNET, precision="fp16")) == features // 2
    pools = size_pools(
        image_bytes=image_bytes([image_spec(256)]),
        feature_bytes=features,
        distance_bytes=image_bytes(distance_specs(256)) + 8,
        max_batch_size=8,
        instances=2,
        queue_size=64,
    )
    # 32 images run and 64 wait: 96 of 7 MiB. 32 of 192 KiB go there, 16 of 21,512 B come back.
    assert pools == MemoryPools(cuda_bytes=672 * MIB, pinned_bytes=7 * MIB)


def test_a_batch_of_eight_fits_the_default_pool_and_two_do_not() -> None:
    """What docs/guides/gpu.md says of Triton's 64 MiB."""
    batch = 8 * image_bytes(feature_specs(256, WIDE_RESNET))
    assert batch < 64 * MIB < 2 * batch


def test_ensembles_tell_the_launcher(tiny_build: Path, tmp_path: Path) -> None:
    repository = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    assert memory_pools(repository) == {}
    gpu = Platform("onnxruntime", "cuda")
    publish_tiny(tiny_build / CATEGORY, repository, platform=gpu)
    features = 4 * (32 * 16 * 16 + 48 * 8 * 8 + 192 * 4 * 4)
    assert memory_pools(repository) == {
        "cuda_pool_bytes": -(-(2 * 2 * 4 + 64) * features // MIB) * MIB,
        "pinned_pool_bytes": MIB,
    }

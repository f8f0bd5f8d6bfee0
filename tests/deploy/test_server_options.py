"""What the server is started with: memory pools as the repository asks for them, threads as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import server_options as options_module
from deploy.installation import Installation
from deploy.ports import Ports
from deploy.repository import largest_batch, memory_pools, pool_threads
from deploy.server import TritonServer, running_server
from deploy.server_options import grpc_options, pool_options, stub_environment, usable_cores
from export.releases.repository import Repository
from export.serving.backbones import Platform
from tests.conftest import CATEGORY
from tests.products import copy_backends
from tests.tiny_products import publish_tiny

MIB = 1 << 20

ASKING = """
parameters {{
  key: "cuda_pool_bytes"
  value {{
    string_value: "{cuda}"
  }}
}}
parameters {{
  key: "pinned_pool_bytes"
  value {{
    string_value: "{pinned}"
  }}
}}
"""


def test_the_most_demanding_category_decides(tmp_path: Path) -> None:
    for name, cuda, pinned in (("pill", 700, 3), ("nut", 90, 400)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(ASKING.format(cuda=cuda * MIB, pinned=pinned * MIB))
    asked = memory_pools(tmp_path)
    assert asked == {"cuda_pool_bytes": 700 * MIB, "pinned_pool_bytes": 400 * MIB}
    assert pool_options(asked, gpus=2) == [
        f"--pinned-memory-pool-byte-size={400 * MIB}",
        f"--cuda-memory-pool-byte-size=0:{700 * MIB}",
        f"--cuda-memory-pool-byte-size=1:{700 * MIB}",
    ]


def test_pools_are_never_smaller_than_tritons_own() -> None:
    assert pool_options({"cuda_pool_bytes": 1, "pinned_pool_bytes": 1}, gpus=1) == [
        f"--pinned-memory-pool-byte-size={256 * MIB}",
        f"--cuda-memory-pool-byte-size=0:{64 * MIB}",
    ]
    assert pool_options({}, gpus=1) == []


def test_threads_stand_in_the_configuration_unless_they_are_given() -> None:
    assert "ASTMFR_INTRA_OP_THREADS" not in stub_environment(0, shm_prefix="a_")
    assert stub_environment(3, shm_prefix="a_")["ASTMFR_INTRA_OP_THREADS"] == "3"
    assert stub_environment(0, shm_prefix="a_")["ASTMFR_TURNS"] == "/dev/shm/a_turns"


STATING = """
name: "{name}"
parameters {{
  key: "intra_op_thread_count"
  value {{
    string_value: "{threads}"
  }}
}}
backend: "{backend}"
"""


def test_the_pool_has_the_most_threads_that_a_model_of_its_backend_states(tmp_path: Path) -> None:
    assert pool_threads(tmp_path) == 0
    for name, threads, backend in (("a", 2, "onnxruntime"), ("b", 3, "onnxruntime"), ("c", 8, "python")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(
            STATING.format(name=name, threads=threads, backend=backend)
        )
    assert pool_threads(tmp_path) == 3


def test_what_is_published_reaches_the_launcher(tiny_build: Path, tmp_path: Path) -> None:
    models = copy_backends(tmp_path / "models")
    publish_tiny(tiny_build / CATEGORY, models, platform=Platform("onnxruntime"))
    assert pool_threads(models) == 0
    publish_tiny(tiny_build / CATEGORY, models, platform=Platform("onnxruntime", threads=3))
    assert pool_threads(models) == Repository(models).pool_threads() == 3


def test_the_server_keeps_few_arenas() -> None:
    assert stub_environment(0, shm_prefix="a_")["MALLOC_ARENA_MAX"] == "2"


@pytest.mark.parametrize(
    ("asked", "published", "cores", "threads"),
    [(0, 0, 4, 4), (0, 3, 4, 3), (2, 3, 4, 2), (0, 8, 2, 2), (9, 0, 2, 2)],
)
def test_the_pool_is_as_large_as_asked_published_or_the_machine(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: int,
    published: int,
    cores: int,
    threads: int,
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(TritonServer, "_start", lambda self, command, environment: started.append(command))
    monkeypatch.setattr(options_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(options_module, "pool_threads", lambda repository: published)
    TritonServer(
        Installation(("tritonserver",), {}, ""),
        repository,
        ["identity"],
        log=tmp_path / "log",
        host="127.0.0.1",
        ports=Ports(http=1, grpc=2, metrics=3),
        threads=asked,
        timeout_s=1,
    )
    assert started[0][-2:] == [
        "--backend-config=onnxruntime,enable-global-threadpool=1",
        f"--backend-config=onnxruntime,intra_op_thread_count={threads}",
    ]


@pytest.mark.triton
def test_a_server_starts_with_the_pools(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded one has no use for them, and takes them."""
    config = repository / "identity" / "config.pbtxt"
    config.write_text(config.read_text() + ASKING.format(cuda=100 * MIB, pinned=300 * MIB))
    monkeypatch.setattr(options_module, "count_gpus", lambda: 1)
    log = tmp_path / "log"
    with running_server(repository=repository, log=log) as server:
        assert [model.state for model in server.models()] == ["READY"]
    said = log.read_text()
    assert f"| pinned_memory_pool_byte_size     | {300 * MIB} " in said
    assert f"--cuda-memory-pool-byte-size=0:{100 * MIB}" in said
    # Of a backend that this server does not have.
    assert f"--backend-config=onnxruntime,intra_op_thread_count={usable_cores()}" in said


@pytest.mark.parametrize(
    ("largest", "options"),
    [
        (0, []),
        (8, []),
        (32, ["--grpc-infer-allocation-pool-size=96"]),
        (128, ["--grpc-infer-allocation-pool-size=128"]),
    ],
)
def test_answers_are_kept_ready_for_full_batches(largest: int, options: list[str]) -> None:
    assert grpc_options(largest) == options


def test_the_largest_batch_is_an_ensembles(tmp_path: Path) -> None:
    for name, text in {
        "pill": 'name: "pill"\nplatform: "ensemble"\nmax_batch_size: 32\n',
        "nut": 'name: "nut"\nplatform: "ensemble"\nmax_batch_size: 8\n',
        "distance_fusion": 'name: "distance_fusion"\nmax_batch_size: 128\nbackend: "python"\n',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(text)
    assert largest_batch(tmp_path) == 32
    assert largest_batch(tmp_path / "pill") == 0

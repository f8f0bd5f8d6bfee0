"""What the server is started with: memory pools as the repository asks for them, threads as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import server as server_module
from deploy.repository import memory_pools
from deploy.server import running_server
from deploy.server_options import pool_options, stub_environment

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


@pytest.mark.triton
def test_a_server_starts_with_the_pools(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded one has no use for them, and takes them."""
    config = repository / "identity" / "config.pbtxt"
    config.write_text(config.read_text() + ASKING.format(cuda=100 * MIB, pinned=300 * MIB))
    monkeypatch.setattr(server_module, "count_gpus", lambda: 1)
    log = tmp_path / "log"
    with running_server(repository=repository, log=log) as server:
        assert [model.state for model in server.models()] == ["READY"]
    said = log.read_text()
    assert f"| pinned_memory_pool_byte_size     | {300 * MIB} " in said
    assert f"--cuda-memory-pool-byte-size=0:{100 * MIB}" in said

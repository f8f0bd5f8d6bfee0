from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.errors import ServerError
from deploy.supervision import shared_memory
from deploy.supervision.shared_memory import Regions, region_bytes, require_shared_memory, sweep

MIB = 1 << 20
STEP = """
name: "student"
max_batch_size: 8
input {{
  name: "image"
  data_type: TYPE_UINT8
  dims: 64
  dims: 64
  dims: 3
}}
input {{
  name: "teacher_1"
  data_type: TYPE_FP32
  dims: {channels}
  dims: 64
  dims: 64
}}
output {{
  name: "mask"
  data_type: TYPE_BOOL
  dims: -1
}}
instance_group {{
  count: 2
  kind: KIND_CPU
}}
backend: "{backend}"
"""


def add(repository: Path, name: str, *, backend: str = "python", channels: int = 256) -> None:
    (repository / name).mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(STEP.format(backend=backend, channels=channels))


def test_a_region_grows_to_a_full_batch(tmp_path: Path) -> None:
    add(tmp_path, "student")
    # 8 images of 12 KiB and 4 MiB: 32.1 MiB, in steps of 4, beside the first 4.
    assert region_bytes(tmp_path, ["student"]) == (2 * 4 * MIB, 2 * (4 + 36) * MIB)


def test_other_backends_have_none(tmp_path: Path) -> None:
    add(tmp_path, "student", backend="onnxruntime")
    assert region_bytes(tmp_path, ["student"]) == (0, 0)


def test_too_little_room_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "student")

    class Room:
        f_bavail, f_frsize, f_blocks = 7, MIB, 64

    monkeypatch.setattr(shared_memory.os, "statvfs", lambda _: Room)
    with pytest.raises(ServerError) as raised:
        require_shared_memory(tmp_path, ["student"])
    assert raised.value.message == (
        "/dev/shm has 7 MiB free, and the Python steps begin with 8 MiB and take 80 MiB with full batches; give the "
        "container --shm-size=137m, or enlarge it with `mount -o remount,size=137m /dev/shm`."
    )
    Room.f_bavail = 8
    require_shared_memory(tmp_path, ["student"])


def test_no_shared_memory_is_told(tmp_path: Path) -> None:
    add(tmp_path, "student")
    with pytest.raises(ServerError, match=r"cannot be used .* need 80 MiB there; mount it with"):
        require_shared_memory(tmp_path, ["student"], tmp_path / "none")


OWNER = """
import sys, time
from pathlib import Path
from deploy.supervision.shared_memory import Regions
regions = Regions(Path(sys.argv[1]))
regions.lock()
Path(sys.argv[1], regions.prefix + "region").write_bytes(bytes(1000))
print("ready", flush=True)
time.sleep(60)
"""


def test_what_a_killed_owner_left_is_removed_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "another").write_bytes(b"kept")
    mine = Regions(tmp_path)
    mine.lock()
    (tmp_path / f"{mine.prefix}region").write_bytes(b"kept")
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert sweep(tmp_path) == 0
        owner.kill()
    assert sweep(tmp_path) == 1000
    left = {path.name.removeprefix(mine.prefix) for path in tmp_path.iterdir()}
    assert left == {"another", "lock", "region"}
    mine.free()
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_what_a_removal_that_was_interrupted_left_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = Regions(tmp_path)
    regions.lock()
    for name in ("a", "zone"):  # the folder lists them in any order
        (tmp_path / f"{regions.prefix}{name}").touch()
    removed: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path: removed.append(path.name))
    regions.free()
    assert len(removed) == 3
    assert removed[-1] == f"{regions.prefix}lock"


def test_no_descriptors_are_no_error_of_a_server_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise OSError(24, "Too many open files")

    regions = Regions(tmp_path)
    regions.lock()
    monkeypatch.setattr(Path, "glob", breaks)
    regions.free()
    monkeypatch.undo()
    assert list(tmp_path.iterdir())
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())

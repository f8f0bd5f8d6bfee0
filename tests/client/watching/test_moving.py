"""Pictures moved apart: never one over another, on another disk too, and finished after a kill in any step."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client.watching.arrivals import Arrival, digest_of
from client.watching.events import Events
from client.watching.journal import Journal
from client.watching.moving import Destinations, Mover
from client.watching.rows import REMOVED, Entry
from tests.client.judging.scripted_server import Script, scripted_server
from tests.client.samples import make_prediction
from tests.client.watching.running import BAD, judge_once, put


class Case:
    """A picture in a folder, recorded and to be moved."""

    def __init__(self, tmp_path: Path) -> None:
        self.drop, self.good, self.said = tmp_path / "drop", tmp_path / "good", io.StringIO()
        self.journal = Journal(tmp_path / "j")
        self.journal.belong_to(self.drop, "pill")
        self.mover = Mover(self.drop, self.journal, events=Events(self.said), forget=lambda _: None)

    def record(self, name: str, *, target: Path | None = None) -> int:
        path = put(self.drop / name)
        arrival = Arrival.of(Path(name), path.stat())
        entry = Entry(
            arrival, digest_of(path.read_bytes()), make_prediction(name), target=target or self.good / name
        )
        (number,) = self.journal.record([entry])
        assert number is not None
        return number

    def paths(self) -> list[Path]:
        return [each.path for each in self.journal.judged_since(0)]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_it_is_moved_and_the_journal_says_where(case: Case) -> None:
    case.record("sub/a.png")
    assert case.paths() == [case.drop / "sub" / "a.png"]
    assert case.mover.finish()
    assert case.paths() == [case.good / "sub" / "a.png"]
    assert case.paths()[0].is_file()
    assert list((case.drop / "sub").iterdir()) == []
    assert case.journal.unsettled() == []


def test_of_two_with_one_name_both_are_kept(case: Case) -> None:
    case.good.mkdir()
    (case.good / "a.png").write_bytes(b"another one")
    case.record("a.png")
    assert case.mover.finish()
    assert (case.good / "a.png").read_bytes() == b"another one"
    assert case.paths() == [case.good / "a.1.png"]
    assert case.paths()[0].stat().st_size > 20


def test_a_long_name_gets_a_number_too(case: Case) -> None:
    name = "x" * 250 + ".png"
    case.good.mkdir()
    (case.good / name).write_bytes(b"another one")
    with (case.drop.parent / "t").open("wb") as file:
        file.write(b"picture")
    case.drop.mkdir()
    (case.drop.parent / "t").rename(case.drop / name)
    arrival = Arrival.of(Path(name), (case.drop / name).stat())
    case.journal.record([Entry(arrival, b"d", make_prediction(name), target=case.good / name)])
    assert case.mover.finish()
    assert len(list(case.good.iterdir())) == 2


def test_what_is_written_over_it_with_its_time_is_not_moved(case: Case) -> None:
    case.record("a.png")
    path = case.drop / "a.png"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert case.mover.finish()
    assert case.paths() == [path]
    assert not case.good.exists()
    assert "was written over after it was judged as number 1" in case.said.getvalue()


def test_a_removed_one_is_gone(case: Case) -> None:
    case.record("a.png", target=REMOVED)
    assert case.mover.finish()
    assert list(case.drop.iterdir()) == []


def grabbed(case: Case, number: int) -> Path:
    return case.drop / f".astmfr-{number}.png"


def after_grabbing(case: Case, number: int) -> None:
    (case.drop / "a.png").rename(grabbed(case, number))


def after_the_note(case: Case, number: int) -> None:
    after_grabbing(case, number)
    case.good.mkdir()
    (case.good / "a.png").write_text(f"{case.journal.id} {number}")


def after_the_copy_to_another_disk(case: Case, number: int) -> None:
    after_grabbing(case, number)
    case.good.mkdir()
    shutil.copy2(grabbed(case, number), case.good / "a.png")


def after_the_move(case: Case, number: int) -> None:
    case.good.mkdir()
    (case.drop / "a.png").rename(case.good / "a.png")


@pytest.mark.parametrize(
    "kill", [after_grabbing, after_the_note, after_the_copy_to_another_disk, after_the_move]
)
def test_a_kill_in_between_is_mended(case: Case, kill: Callable[[Case, int], None]) -> None:
    kill(case, case.record("a.png"))
    assert case.mover.finish()
    assert case.paths() == [case.good / "a.png"]
    assert (case.good / "a.png").read_bytes().startswith(b"\x89PNG")
    assert list(case.drop.iterdir()) == []
    assert [path.name for path in case.good.iterdir()] == ["a.png"]
    assert case.said.getvalue() == ""


def test_what_was_written_over_meanwhile_stays(case: Case) -> None:
    case.record("a.png")
    put(case.drop / "a.png", BAD)
    assert case.mover.finish()
    assert "was written over after it was judged as number 1" in case.said.getvalue()
    assert case.paths() == [case.drop / "a.png"]
    assert not case.good.exists()


def test_what_was_exchanged_in_the_last_moment_goes_back(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.record("a.png")
    rename = Path.rename

    def exchange(path: Path, target: Path) -> Path:
        if path.name == "a.png":
            monkeypatch.undo()
            put(path, BAD)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", exchange)
    assert case.mover.finish()
    assert [path.name for path in case.drop.iterdir()] == ["a.png"]
    assert not case.good.exists()


def test_one_that_somebody_took_is_told(case: Case) -> None:
    case.record("a.png")
    (case.drop / "a.png").unlink()
    assert case.mover.finish()
    assert "somebody took it before it was moved" in case.said.getvalue()
    assert case.journal.unsettled() == []


def test_a_full_disk_is_told_once_and_holds_nothing_half(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.record("a.png")
    case.record("b.png")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def other_disk(path: Path, target: Path) -> Path:
        if target.parent == case.good:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real_rename(path, target)

    real_rename = Path.rename
    with monkeypatch.context() as full:
        full.setattr(Path, "rename", other_disk)
        full.setattr(shutil, "copy2", fail)
        assert not case.mover.finish()
        assert not case.mover.finish()
    assert case.said.getvalue().count("No space left on device") == 1
    assert list(case.good.iterdir()) == []
    assert sorted(path.name for path in case.drop.iterdir()) == [
        "a.png",
        "b.png",
    ]  # seen until they are moved
    assert case.mover.finish()
    assert "Pictures are moved again." in case.said.getvalue()
    assert sorted(path.name for path in case.good.iterdir()) == ["a.png", "b.png"]


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs two disks",
)
def test_to_another_disk(case: Case) -> None:
    there = Path("/dev/shm") / f"astmfr-test-{os.getpid()}"
    try:
        case.record("a.png", target=there / "a.png")
        content, before = (case.drop / "a.png").read_bytes(), (case.drop / "a.png").stat()
        assert case.mover.finish()
        assert (there / "a.png").read_bytes() == content
        assert (there / "a.png").stat().st_mtime_ns == before.st_mtime_ns
        assert [path.name for path in there.iterdir()] == ["a.png"]
        assert list(case.drop.iterdir()) == []
    finally:
        shutil.rmtree(there, ignore_errors=True)


def test_the_same_file_given_again_is_told_and_a_move_that_was_undone_is_done(tmp_path: Path) -> None:
    drop, good = tmp_path / "drop", tmp_path / "good"
    path = put(drop / "a.png")
    keep = tmp_path / "keep"
    shutil.copy2(path, keep)
    with scripted_server(Script()) as url:
        judge_once(drop, url, destinations=Destinations(good=good))
        shutil.copy2(keep, path)  # the same file, by somebody
        running = judge_once(drop, url, destinations=Destinations(good=good))
        assert "a.png was judged already, as number 1; it is not judged again, and stays" in running.said
        (good / "a.png").unlink()  # as after a power failure: the file is back, and the journal says moved
        running = judge_once(drop, url, destinations=Destinations(good=good))
    assert running.tally.judged == 0
    assert (good / "a.png").exists()
    assert not path.exists()


def test_destinations_in_the_folder_are_not_watched(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    put(drop / "a.png")
    put(drop / "b.png", BAD)
    destinations = Destinations(good=drop / "good", bad=drop / "bad")
    with scripted_server(Script()) as url:
        assert judge_once(drop, url, destinations=destinations).tally.judged == 2
        assert judge_once(drop, url, destinations=destinations).tally.judged == 0
    assert (drop / "good" / "a.png").exists()
    assert (drop / "bad" / "b.png").exists()

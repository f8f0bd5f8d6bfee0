"""A watched folder: what is judged, when, and once."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from client.core.errors import ImageFileError, RequestError
from client.files import StorageError
from client.watching.arrivals import Arrival
from client.watching.moving import Destinations
from client.watching.watch import Watch
from tests.client.judging.scripted_server import Script, png, scripted_server
from tests.client.watching.running import BAD, GOOD, Running, judge_once, names, put, watching


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with scripted_server(script) as served:
        yield served


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def test_what_lies_there_and_what_arrives_is_judged_in_order(drop: Path, url: str) -> None:
    put(drop / "a.png")
    put(drop / "later" / "b.png", BAD)
    with watching(drop, url) as running:
        assert running.judges(2)
        put(drop / "c.png")
        assert running.judges(3)
        judged = running.judged()
    assert names(judged) == ["a.png", "b.png", "c.png"]
    assert [each.prediction.anomalous for each in judged] == [False, True, False]
    assert [each.number for each in judged] == [1, 2, 3]
    assert judged[1].path == drop.resolve() / "later" / "b.png"
    assert (running.tally.good, running.tally.bad) == (2, 1)
    assert "Anomalous: later/b.png, score 150.0000 above 100.0000." in running.said


def test_a_second_run_judges_none_again_and_another_name_or_content_is_another_picture(
    drop: Path, url: str, script: Script
) -> None:
    put(drop / "a.png")
    assert judge_once(drop, url).tally.good == 1
    assert judge_once(drop, url).tally.judged == 0
    os.link(drop / "a.png", drop / "same.png")
    assert names(judge_once(drop, url).judged()) == ["a.png", "same.png"]
    (drop / "a.png").write_bytes(png(BAD))  # in place, as some cameras do
    judged = judge_once(drop, url).judged()
    assert names(judged) == ["a.png", "same.png", "a.png", "same.png"]  # two names of one file, both new
    assert script.tries == 4


def test_a_share_that_is_mounted_anew_has_other_inodes_and_the_same_pictures(
    drop: Path, url: str, script: Script
) -> None:
    before = put(drop / "a.png").stat()
    judge_once(drop, url)
    for content, tries in ((png(51), 2), (png(50), 2)):
        assert len(content) == before.st_size
        (drop / "new").write_bytes(content)
        (drop / "new").rename(drop / "a.png")
        os.utime(drop / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
        judge_once(drop, url)
        assert script.tries == tries


def test_a_file_that_is_still_written_is_waited_for(drop: Path, url: str, script: Script) -> None:
    content = png(BAD)
    with watching(drop, url, settle_s=0.1) as running:
        with (drop / "slow.png").open("wb") as file:
            for part in (content[:40], content[40:60], content[60:]):
                time.sleep(0.2)
                file.write(part)
                file.flush()
                assert running.judged() == []
            time.sleep(0.2)
            assert script.tries == 0
        assert running.judges(1)
        assert [each.prediction.score for each in running.judged()] == [BAD]


def test_a_file_that_stands_still_in_the_middle_is_read_when_it_is_whole(
    drop: Path, url: str, script: Script
) -> None:
    content = png(BAD)
    with watching(drop, url, settle_s=0.05) as running:
        (drop / "halting.png").write_bytes(content[:-30])
        time.sleep(0.6)
        assert (script.tries, running.judged()) == (0, [])
        (drop / "halting.png").write_bytes(content)
        assert running.judges(1)
    assert running.tally.unjudged == 0


def bmp(grey: int) -> bytes:
    """A picture whose size does not depend on what it shows."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (grey,) * 3).save(buffer, "BMP")
    return buffer.getvalue()


def test_a_file_of_full_size_is_waited_for_while_it_is_open(drop: Path, url: str, script: Script) -> None:
    content = bmp(BAD)
    with watching(drop, url, settle_s=0.05) as running:
        with (drop / "slow.bmp").open("wb") as file:
            file.truncate(len(content))
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(0.5)
            assert (script.tries, running.judged()) == (0, [])
            file.write(content[len(content) // 2 :])
        assert running.judges(1)
        assert [each.prediction.score for each in running.judged()] == [BAD]


def test_a_file_that_stays_open_is_told_and_ends_a_run_as_not_read(drop: Path, url: str) -> None:
    with (drop / "held.bmp").open("wb") as file:
        file.write(bmp(BAD))
        file.flush()
        running = judge_once(drop, url, patience_s=0.3)
    assert (running.tally.judged, running.tally.unread, running.tally.exit_code) == (0, 1, 2)
    assert "held.bmp is open for writing, and nothing was written to it for" in running.said


def overwrite(path: Path, content: bytes) -> None:
    """In place, with the time that it had: two pictures within one tick of a coarse clock."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino


def test_what_is_written_over_a_picture_with_its_size_and_time_is_judged(drop: Path, url: str) -> None:
    path = drop / "latest.bmp"
    path.write_bytes(bmp(GOOD))
    with watching(drop, url) as running:
        assert running.judges(1)
        overwrite(path, bmp(BAD))
        assert running.judges(2)
    overwrite(path, bmp(GOOD + 1))  # while nobody watches
    assert [each.prediction.score for each in judge_once(drop, url).judged()] == [GOOD, BAD, GOOD + 1]
    path.chmod(0o644)  # which changes nothing that is seen
    assert judge_once(drop, url).tally.judged == 0


def test_where_times_are_whole_seconds_the_content_decides(
    drop: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, second_ns = drop / "latest.bmp", int(time.time()) * 10**9

    def coarse(_kind: type[Arrival], name: Path, status: os.stat_result) -> Arrival:
        return Arrival(name, status.st_size, second_ns, status.st_ino, second_ns)

    monkeypatch.setattr(Arrival, "of", classmethod(coarse))
    monkeypatch.setattr(Arrival, "is_still", lambda *_: True)
    monkeypatch.setattr("client.watching.asking._read", lambda path, arrival: (path.read_bytes(), arrival))
    monkeypatch.setattr("client.watching.sources.folder._mark", lambda name, *_: hash(name))
    path.write_bytes(bmp(GOOD))
    with watching(drop, url) as running:
        assert running.judges(1)
        overwrite(path, bmp(BAD))
        assert running.judges(2)


def test_a_file_that_an_earlier_run_could_not_judge_counts_while_it_lies_there(drop: Path, url: str) -> None:
    (drop / "torn.png").write_bytes(b"no picture")
    os.utime(drop / "torn.png", (0, 0))
    put(drop / "good.png")
    assert judge_once(drop, url).tally.exit_code == 2
    running = judge_once(drop, url)
    assert (running.tally.judged, running.tally.unjudged, running.tally.exit_code) == (0, 1, 2)
    assert "1 files still lie there that an earlier run could not judge, as torn.png" in running.said
    (drop / "torn.png").unlink()
    assert judge_once(drop, url).tally.exit_code == 0


def test_a_file_renamed_into_place_is_not_waited_for(drop: Path, url: str) -> None:
    with watching(drop, url, settle_s=60) as running:
        put(drop / "a.png")
        assert running.judges(1)


def test_a_clock_that_was_set_back_leaves_no_file_behind(drop: Path, url: str) -> None:
    tomorrow = time.time() + 86_400
    os.utime(put(drop / "a.png"), (tomorrow, tomorrow))
    with watching(drop, url) as running:
        assert running.judges(1)


def test_a_file_that_stays_broken_is_recorded_as_not_judged(drop: Path, url: str, tmp_path: Path) -> None:
    old = time.time() - 60
    for name, content in (("torn.png", png(1)[:-30]), ("text.jpg", b"no picture"), ("none.png", b"")):
        (drop / name).write_bytes(content)
        os.utime(drop / name, (old, old))
    put(drop / "good.png")
    aside = tmp_path / "aside"
    running = judge_once(drop, url, destinations=Destinations(unjudged=aside))
    assert (running.tally.good, running.tally.unjudged, running.tally.exit_code) == (1, 3, 2)
    assert sorted(path.name for path in aside.iterdir()) == ["none.png", "text.jpg", "torn.png"]
    assert "Not judged: " in running.said
    assert judge_once(drop, url).tally.exit_code == 0


def test_exit_codes(drop: Path, url: str) -> None:
    assert judge_once(drop, url).tally.exit_code == 0
    put(drop / "good.png")
    assert judge_once(drop, url).tally.exit_code == 0
    put(drop / "bad.png", BAD)
    assert judge_once(drop, url).tally.exit_code == 1


def test_other_files_are_counted_on_one_line_and_hidden_ones_are_not(drop: Path, url: str) -> None:
    for number in range(300):
        (drop / f"{number}.txt").write_text("a note")
        (drop / f".{number}.png").write_bytes(b"")
    (drop / "link.png").symlink_to("nowhere")
    (drop / "elsewhere").symlink_to("..")
    put(drop / "a.png")
    running = judge_once(drop, url)
    (line,) = [line for line in running.said.splitlines() if "left out" in line]
    assert "302 files are left out" in line
    assert ".txt 300" in line
    assert running.tally.exit_code == 0


def test_how_it_goes_is_told_at_intervals(drop: Path, url: str) -> None:
    put(drop / "a.png")
    with watching(drop, url, status_s=0.1) as running:
        assert running.says("1 judged: 0 anomalous, 1 good; 0 a minute; 0 wait.")


def test_what_a_lost_journal_was_moving_is_told(drop: Path, url: str) -> None:
    put(drop / ".astmfr-7.png")
    assert "1 pictures lie hidden as .astmfr-NUMBER" in judge_once(drop, url).said


def test_a_name_that_is_no_text_is_judged_and_found_again(drop: Path, url: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"t\xff\nteil.png")
    put(drop / name, BAD)
    torn = drop / os.fsdecode(b"\xfe.png")
    torn.write_bytes(b"no picture")
    os.utime(torn, (0, 0))
    running = judge_once(drop, url, destinations=Destinations(bad=tmp_path / "bad"))
    assert "Not judged: " in running.said
    assert [each.path for each in running.judged()] == [tmp_path / "bad" / name]
    assert (tmp_path / "bad" / name).exists()
    assert "t\\udcff\\nteil.png" in running.said
    assert judge_once(drop, url).tally.judged == 0


def test_a_file_that_cannot_be_read_is_told_once_and_tried_again(
    drop: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(drop / "locked.png")
    put(drop / "open.png")
    real_open, locked = Path.open, [True]

    def open_unless_locked(path: Path, *arguments: str, **options: str) -> object:
        if path.name == "locked.png" and locked:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_unless_locked)
    monkeypatch.setattr("client.watching.pipeline.UNREADABLE_RETRY_S", 0.1)
    running = judge_once(drop, url)
    assert (running.tally.good, running.tally.unread, running.tally.exit_code) == (1, 1, 2)
    with watching(drop, url) as running:
        time.sleep(0.5)
        assert running.said.count("locked.png cannot be read (Permission denied)") == 1
        locked.clear()
        assert running.judges(2)


def test_a_second_watch_is_refused_by_folder_and_by_journal(drop: Path, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    journal = tmp_path / "journal.sqlite"
    with watching(drop, url, journal=journal) as running:
        assert running.says("Watching")
        with pytest.raises(StorageError, match=r"drop is watched already, by process \d+ on "):
            judge_once(drop, url)
        with pytest.raises(StorageError, match=r"journal.sqlite is watched already"):
            judge_once(other, url, journal=journal)
    assert judge_once(drop, url, journal=journal).tally.exit_code == 0
    with pytest.raises(StorageError, match=r"is the journal of .*drop, and .*other was given"):
        judge_once(other, url, journal=journal)


def test_a_folder_that_vanishes_is_told_once_and_waited_for(drop: Path, url: str, tmp_path: Path) -> None:
    with watching(drop, url, journal=tmp_path / "journal.sqlite") as running:
        put(drop / "a.png")
        assert running.judges(1)
        drop.rename(tmp_path / "away")
        assert running.says("cannot be read (No such file or directory); waiting until it can be.")
        time.sleep(0.2)
        (tmp_path / "away").rename(drop)
        assert running.says("can be read again")
        put(drop / "b.png")
        assert running.judges(2)
        assert running.said.count("waiting until it can be") == 1
    assert names(running.judged()) == ["a.png", "b.png"]


def test_a_folder_that_is_none_is_refused(drop: Path, url: str, tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="does not exist"):
        judge_once(tmp_path / "nowhere", url)
    with pytest.raises(ImageFileError, match="is a file"):
        judge_once(put(tmp_path / "a.png"), url)
    with pytest.raises(RequestError, match="holds the watched folder"):
        judge_once(drop, url, destinations=Destinations(good=tmp_path))


def test_a_journal_that_is_removed_ends_it(drop: Path, url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    running = Running(Watch(drop, "pill", journal=journal), url)
    assert running.says("Watching")
    journal.unlink()
    put(drop / "a.png")
    running.thread.join(10)
    with pytest.raises(StorageError, match="was removed while it was in use"):
        running.end()

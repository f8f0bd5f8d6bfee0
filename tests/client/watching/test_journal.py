"""The journal: each picture once, in rising numbers, over kills; what it says where it cannot be used."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from client.watching.arrivals import Arrival
from client.watching.database import JournalError, connect
from client.watching.filesystems import network_of
from client.watching.forgetting import Forgetting
from client.watching.journal import Journal
from client.watching.rows import REMOVED, Entry
from client.watching.sinks.outbox import Outbox
from tests.client.samples import make_prediction
from tests.client.watching.running import put


def entry(name: str, *, digest: bytes = b"d", target: Path | None = None, fault: str | None = None) -> Entry:
    prediction = None if fault else make_prediction(name)
    return Entry(Arrival(Path(name), 10, 20, 2**64 - 1), digest, prediction, fault, target)


def test_what_is_recorded_is_read_back_once_and_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.belong_to(tmp_path, "pill")
        assert journal.record([entry("a"), entry("b", fault="torn"), entry("c"), entry("a")]) == [
            1,
            2,
            3,
            None,
        ]
        assert journal.record([entry("a"), entry("a", digest=b"other")]) == [None, 4]
        with Journal(tmp_path / "j", read_only=True) as reader:
            judged = reader.judged_since(0)
            assert [(each.number, each.path.name) for each in judged] == [
                (1, "a"),
                (2, "b"),
                (3, "c"),
                (4, "a"),
            ]
            assert [each.fault for each in judged] == [None, "torn", None, None]
            assert (judged[0].prediction, judged[1].prediction) == (make_prediction("a"), None)
            assert [bytes.fromhex(each.digest) for each in judged] == [b"d", b"d", b"d", b"other"]
            assert (reader.folder, reader.category) == (tmp_path, "pill")
            assert judged[0].judged_at.utcoffset() is not None
            assert [each.number for each in reader.judged_since(1, limit=2)] == [2, 3]
            assert reader.judged_since(4) == []


def test_where_a_picture_may_lie_while_it_is_moved(tmp_path: Path) -> None:
    drop, target = tmp_path / "drop", tmp_path / "good" / "a.png"
    with Journal(tmp_path / "j") as journal:
        journal.belong_to(drop, "pill")
        journal.record([entry("a.png", target=target), entry("r.png", target=REMOVED), entry("s.png")])

        def paths() -> list[tuple[Path, ...]]:
            return [each.paths for each in journal.judged_since(0)]

        moving = (drop / "a.png", drop / ".astmfr-1.png", target, target.with_name("a.1.png"))
        assert paths() == [moving, (drop / "r.png", drop / ".astmfr-2.png"), (drop / "s.png",)]
        journal.settle(1)
        journal.settle(2)
        assert paths()[:2] == [(target, drop / "a.png"), (drop / "r.png",)]
        journal.settle(1, stays=True)
        assert paths()[0] == (drop / "a.png",)


def test_a_row_of_another_version_is_told_in_a_sentence(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.record([entry("a")])
        journal._database.execute("""UPDATE pictures SET prediction = '{"colour": 1}'""")
        with pytest.raises(JournalError, match=r"Number 1 of the journal .*the version that wrote it"):
            journal.judged_since(0)


def test_a_journal_of_before_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.record([entry("a")])
    with sqlite3.connect(tmp_path / "j") as database:
        database.execute("ALTER TABLE pictures DROP COLUMN ctime_ns")
    database.close()
    with Journal(tmp_path / "j") as journal:
        assert [known.arrival.ctime_ns for known in journal.find(entry("a").arrival)] == [0]
        assert journal.record([entry("b")]) == [journal.last_number()] == [2]


def test_a_name_that_is_no_text_and_a_large_inode_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    with Journal(tmp_path / "j") as journal:
        journal.record([entry(name, target=REMOVED)])
        (known,) = journal.find(Arrival(Path(name), 10, 20, 0))
        assert (known.arrival.inode, known.target, known.settled) == (2**64 - 1, REMOVED, False)
        assert journal.has_name(Path(name))
        journal.settle(1)
        assert journal.unsettled() == []


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.record([entry("a")])
    with sqlite3.connect(tmp_path / "j") as database:
        database.execute("DELETE FROM pictures")
    database.close()
    with Journal(tmp_path / "j") as journal:
        assert journal.record([entry("b")]) == [2]


def test_each_journal_has_an_id_and_keeps_it(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "a", "b"):
        with Journal(tmp_path / name) as journal:
            ids.append(journal.id)
    assert ids[0] == ids[1] != ids[2]


def test_it_keeps_its_folder_and_category_and_moves_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "one" / "in").mkdir(parents=True)
    with Journal(tmp_path / "one" / "in" / "j") as journal:
        journal.belong_to(tmp_path / "one", "pill")
        with pytest.raises(JournalError, match="is the journal of category 'pill', and 'screw' was given"):
            journal.belong_to(tmp_path / "one", "screw")
    (tmp_path / "one").rename(tmp_path / "two")
    with Journal(tmp_path / "two" / "in" / "j") as journal:
        journal.belong_to(tmp_path / "two", "pill")
        with pytest.raises(JournalError, match=r"is the journal of .*two, and .*elsewhere was given"):
            journal.belong_to(tmp_path / "elsewhere", "pill")


def test_what_is_none_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no journal" * 100)
    with pytest.raises(JournalError, match="is no journal, or a damaged one"):
        Journal(tmp_path / "text")
    with pytest.raises(JournalError, match="does not exist"):
        Journal(tmp_path / "none", read_only=True)
    connect(tmp_path / "empty").close()
    with pytest.raises(JournalError, match="just making it") as caught:
        Journal(tmp_path / "empty", read_only=True)
    assert caught.value.may_pass
    with sqlite3.connect(tmp_path / "new") as database:
        database.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB)")
        database.execute("INSERT INTO about VALUES ('version', '99')")
    database.close()
    with pytest.raises(JournalError, match="is a journal of form 99, and this program writes form 1"):
        Journal(tmp_path / "new")


def test_what_is_old_delivered_and_gone_is_forgotten(tmp_path: Path) -> None:
    put(tmp_path / "there")
    with Journal(tmp_path / "j") as journal:
        journal.belong_to(tmp_path, "pill")
        outbox = Outbox(journal, "pill", "a sink")
        journal.record([entry("gone"), entry("there"), entry("moving", target=REMOVED), entry("waiting")])
        outbox.delivered(3)
        Forgetting(journal, tmp_path, 1, ["a sink"]).look()
        assert len(journal.judged_since(0)) == 4  # too young
        Forgetting(journal, tmp_path, 1e-9, ["a sink"]).look()
        assert [each.path.name for each in journal.judged_since(0)] == ["there", "moving", "waiting"]
        Forgetting(journal, tmp_path, 1e-9, []).look()
        assert [each.path.name for each in journal.judged_since(0)] == ["there", "moving"]
        assert journal.record([entry("gone")]) == [5]
        outbox.close()


def test_on_a_share_it_asks_for_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network_of(tmp_path) is None
    monkeypatch.setattr("client.watching.database.network_of", lambda _: "cifs at /mnt/line")
    with pytest.raises(JournalError, match=r"network's disk \(cifs at /mnt/line\).*--journal"):
        Journal(tmp_path / "j")


def test_on_a_full_disk_nothing_is_half_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.record([entry("a")])
        limit = journal._database.execute("PRAGMA page_count").fetchone()[0]
        journal._database.execute(f"PRAGMA max_page_count = {limit}")
        with pytest.raises(JournalError, match="database or disk is full") as caught:
            journal.record([entry(f"{number}", fault="x" * 500) for number in range(100)])
        assert caught.value.may_pass
        journal._database.execute("PRAGMA max_page_count = 100000")
        assert journal.record([entry("b")]) == [2]

"""JSON lines: each once, whatever a kill left behind, and nothing of anybody else's touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.files import StorageError
from client.predictions.jsonl import read_jsonl
from client.watching.sinks.jsonl import JsonlFile
from client.watching.sinks.message import Message, SinkDown
from tests.client.watching.sinks.told import message


def lines(*messages: Message) -> str:
    return "".join(each.prediction.to_json() for each in messages if each.prediction)


ONE, TWO, THREE = message(1), message(2, anomalous=True), message(3)
FOUR = message(4)


def test_lines_are_those_of_predict(tmp_path: Path) -> None:
    path = tmp_path / "new" / "verdicts.jsonl"
    sink = JsonlFile(path)
    assert list(sink.deliver([ONE, message(9, judged=False), TWO])) == [2]
    assert list(sink.deliver([THREE])) == [3]
    assert read_jsonl(path) == [each.prediction for each in (ONE, TWO, THREE)]


@pytest.mark.parametrize(
    "left_behind",
    [lines(ONE), lines(ONE, TWO), lines(ONE) + lines(TWO)[:40], lines(ONE, TWO, THREE)],
    ids=["nothing", "a line", "half a line", "all"],
)
def test_after_a_kill_no_line_is_missing_or_there_twice(tmp_path: Path, left_behind: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(left_behind)
    assert list(JsonlFile(path).deliver([TWO, THREE])) == [3]
    assert path.read_text() == lines(ONE, TWO, THREE)


def test_after_a_power_failure_that_took_notes_of_several_batches_no_line_is_there_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(lines(ONE, TWO, THREE))
    sink = JsonlFile(path)
    for each in (ONE, TWO, THREE, FOUR):
        list(sink.deliver([each]))
    assert path.read_text() == lines(ONE, TWO, THREE, FOUR)


def test_a_batch_of_long_lines_is_found_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, batch = tmp_path / "verdicts.jsonl", [ONE, TWO, THREE, FOUR]
    monkeypatch.setattr("client.watching.sinks.jsonl.TAIL_BYTES", len(lines(ONE)) + 10)
    path.write_text(lines(*batch[:3]))
    list(JsonlFile(path).deliver(batch))
    assert path.read_text() == lines(*batch)


def test_half_a_line_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(lines(ONE) + '{"image": "other')
    list(JsonlFile(path).deliver([TWO]))
    assert path.read_text() == lines(ONE) + '{"image": "other\n' + lines(TWO)


def test_a_file_that_was_taken_away_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    sink = JsonlFile(path)
    list(sink.deliver([ONE]))
    path.rename(tmp_path / "verdicts.jsonl.1")
    list(sink.deliver([TWO]))
    assert path.read_text() == lines(TWO)


def test_what_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("call Anna\n")
    with pytest.raises(StorageError, match="holds no predictions"):
        JsonlFile(tmp_path / "notes")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(SinkDown, match="No space left on device"):
        list(JsonlFile(Path("/dev/full")).deliver([ONE]))

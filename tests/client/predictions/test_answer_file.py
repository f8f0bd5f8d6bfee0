"""Answers are stored as they come, whatever happens next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client.core.defects import Defect
from client.core.errors import ClientError
from client.files import StorageError
from client.predictions.jsonl import AnswerFile, read_jsonl
from tests.client.samples import make_prediction, write_jsonl

FIRST, SECOND, THIRD = (make_prediction(f"{name}.png") for name in "abc")


def test_every_answer_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.jsonl"
    answers = AnswerFile(path)
    assert not path.parent.exists()  # nothing is made before there is an answer
    for count, prediction in enumerate((FIRST, SECOND, THIRD), start=1):
        answers.append(prediction)
        assert read_jsonl(path) == [FIRST, SECOND, THIRD][:count]
    assert answers.close(complete=True) is None


def test_the_answers_of_the_run_before_stay_until_this_one_is_complete(tmp_path: Path) -> None:
    path, previous = tmp_path / "predictions.jsonl", tmp_path / "predictions.jsonl.previous"
    write_jsonl([FIRST, SECOND], path)
    answers = AnswerFile(path)
    assert read_jsonl(path) == [FIRST, SECOND]
    answers.append(THIRD)
    assert (read_jsonl(path), read_jsonl(previous)) == ([THIRD], [FIRST, SECOND])
    assert answers.close(complete=False) == f"The answers of the run before are in {previous}."
    assert (read_jsonl(path), read_jsonl(previous)) == ([THIRD], [FIRST, SECOND])
    answers = AnswerFile(path)
    answers.append(FIRST)
    assert answers.close(complete=True) == f"The answers of an earlier run in {path} were replaced."
    assert read_jsonl(path) == [FIRST]
    assert not previous.exists()


def test_runs_that_are_killed_leave_the_answers_of_a_complete_one(tmp_path: Path) -> None:
    path, previous = tmp_path / "predictions.jsonl", tmp_path / "predictions.jsonl.previous"
    write_jsonl([FIRST, SECOND], path)
    for line in (THIRD, FIRST):
        answers = AnswerFile(path)
        answers.append(line)
        answers.close(complete=False)
    assert (read_jsonl(path), read_jsonl(previous)) == ([FIRST], [FIRST, SECOND])
    answers = AnswerFile(path)
    answers.append(THIRD)
    assert answers.close(complete=False) == (
        f"The answers of an earlier run are in {previous}; those of the run before, which was not complete, were "
        "replaced."
    )
    assert read_jsonl(previous) == [FIRST, SECOND]
    write_jsonl([SECOND], path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_file_of_somebody_else_beside_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl.previous").write_text("call Anna\n")
    with pytest.raises(StorageError, match=r"p\.jsonl\.previous exists and holds no predictions"):
        AnswerFile(tmp_path / "p.jsonl")


def test_a_run_that_ends_before_its_first_answer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_jsonl([FIRST], path)
    assert AnswerFile(path).close(complete=False) is None
    assert read_jsonl(path) == [FIRST]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_complete_run_without_answers_leaves_none(tmp_path: Path) -> None:
    """Those of the run before would be taken for its own."""
    path = tmp_path / "predictions.jsonl"
    write_jsonl([FIRST], path)
    AnswerFile(path).close(complete=True)
    assert read_jsonl(path) == []


@pytest.mark.parametrize("content", ["import os\n", '{"image": "a.png"}\n', "\n", '{"score": 1'])
def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(StorageError, match=r"notes\.txt exists and holds no predictions; give another file"):
        AnswerFile(path)
    assert path.read_text() == content


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "predictions.jsonl", tmp_path / "latest.jsonl"
    write_jsonl([FIRST], target)
    link.symlink_to(target)
    write_jsonl([SECOND], link)
    assert link.is_symlink()
    assert read_jsonl(target) == [SECOND]


def test_answers_go_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    write_jsonl([FIRST, SECOND], pipe)
    text, _ = reader.communicate(timeout=20)
    assert [json.loads(line)["image"] for line in text.splitlines()] == ["a.png", "b.png"]
    assert pipe.is_fifo()


def test_a_full_device_is_told_and_stays_a_device() -> None:
    answers = AnswerFile(Path("/dev/full"))
    with pytest.raises(StorageError, match=r"/dev/full cannot be written \(No space left on device\)"):
        answers.append(FIRST)
    answers.close(complete=False)
    assert Path("/dev/full").is_char_device()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from client.files import StorageError
from client.predictions.jsonl import AnswerFile
from tests.client.samples import make_prediction

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
answers = AnswerFile(Path(sys.argv[1]))
kept = 0
try:
    while True:
        answers.append(make_prediction(f"{kept}.png"))
        kept += 1
except StorageError as error:
    print(kept, error.message)
answers.close(complete=False)
"""


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    """A process that may write no more than 5000 bytes to a file."""
    path = tmp_path / "predictions.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True, timeout=60
    )
    kept, sentence = done.stdout.split(maxsplit=1)
    assert sentence.startswith(f"{path} cannot be written (File too large)")
    assert [entry.image for entry in read_jsonl(path)] == [f"{i}.png" for i in range(int(kept))]
    assert int(kept) > 10


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder; give the name of a file"):
        AnswerFile(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be written \(Not a directory\)"):
        AnswerFile(tmp_path / "file" / "predictions.jsonl")
    with pytest.raises(StorageError, match=r"cannot be written \(File name too long\)"):
        AnswerFile(tmp_path / ("n" * 300))


def test_file_names_of_any_bytes_are_read_back(tmp_path: Path) -> None:
    prediction = make_prediction(os.fsdecode(b"lot/f\xfcr\xc3\xa9.png"))
    path = tmp_path / "predictions.jsonl"
    write_jsonl([prediction], path)
    assert read_jsonl(path) == [prediction]
    assert path.read_bytes().isascii()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": float("nan")}, "score is nan, expected a finite number"),
        ({"threshold": float("inf")}, "threshold is inf, expected a finite number"),
        ({"score": "high"}, "score is 'high', expected int or float"),
        ({"score": True}, "score is True, expected int or float"),
        ({"anomalous": 0}, "anomalous is 0, expected bool"),
        ({"defect": 3}, "defect is 3, expected str or null"),
    ],
)
def test_a_line_without_a_verdict_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "predictions.jsonl"
    line = json.loads(FIRST.to_json()) | change
    path.write_text(FIRST.to_json() + json.dumps(line) + "\n")
    with pytest.raises(ClientError) as caught:
        read_jsonl(path)
    assert f"(line 2: {reason})" in caught.value.message


def test_a_figure_that_is_not_finite_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_prediction(score=float("nan")).to_json()


DEFECT = Defect(1, 2, 3, 4, 5, peak=2.5, mean=1.5, centre_x=2.5, centre_y=4.0)


def test_size_and_defects_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    entries = [
        replace(FIRST, original_size=(640, 480), defects=(DEFECT, DEFECT)),
        replace(SECOND, original_size=(1, 1), defects=()),
        THIRD,
    ]
    write_jsonl(entries, path)
    assert read_jsonl(path) == entries
    first, _, third = map(json.loads, path.read_text().splitlines())
    assert first["original_size"] == [640, 480]
    assert first["defects"][1] == DEFECT.to_dict()
    assert (third["original_size"], third["defects"]) == (None, None)


def test_lines_of_before_are_read(tmp_path: Path) -> None:
    """Of a version that wrote neither size nor defects."""
    path = tmp_path / "predictions.jsonl"
    values = json.loads(FIRST.to_json())
    del values["original_size"], values["defects"]
    path.write_text(json.dumps(values) + "\n")
    assert read_jsonl(path) == [FIRST]
    AnswerFile(path)  # may be replaced


def test_a_file_that_begins_with_an_image_full_of_defects_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_jsonl([replace(FIRST, original_size=(640, 480), defects=(DEFECT,) * 2000)], path)
    write_jsonl([SECOND], path)
    assert read_jsonl(path) == [SECOND]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"original_size": [640]}, r"original_size is \[640\], expected two whole numbers"),
        ({"original_size": "640x480"}, "original_size is '640x480', expected two"),
        ({"defects": {}}, "defects is {}, expected a list"),
        ({"defects": [{"left": 1}]}, "missing 8 required"),
        ({"defects": [DEFECT.to_dict() | {"peak": float("nan")}]}, "peak of a defect is nan"),
        ({"defects": [DEFECT.to_dict() | {"area": "large"}]}, "area of a defect is 'large'"),
    ],
)
def test_a_line_with_impossible_defects_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(json.loads(FIRST.to_json()) | change) + "\n")
    with pytest.raises(ClientError, match=reason):
        read_jsonl(path)

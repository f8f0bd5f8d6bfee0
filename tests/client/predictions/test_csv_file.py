"""Answers as a table: a row an image, streamed, and as valid at any moment as it is at the end."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from client.core.defects import Defect
from client.files import StorageError
from client.predictions.csv_file import COLUMNS, CsvFile
from tests.client.samples import RELEASE, make_prediction

SMALL = Defect(0, 0, 3, 2, 5, peak=9.0, mean=4.0, centre_x=1.5, centre_y=1.0)
LARGE = Defect(10, 20, 30, 40, 900, peak=5.0, mean=3.0, centre_x=25.0, centre_y=40.0)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_tells_the_verdict_and_the_largest_defect(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    table = CsvFile(path)
    assert not path.parent.exists()
    prediction = replace(
        make_prediction("a.png", score=2.5, anomalous=True),
        original_size=(640, 480),
        defects=(SMALL, LARGE),
    )
    table.append(prediction)
    (row,) = rows(path)  # before it is closed
    assert tuple(row) == COLUMNS
    assert row["image"] == "a.png"
    assert (row["verdict"], row["score"], row["release_id"]) == ("anomalous", "2.5", str(RELEASE))
    assert (row["original_width"], row["original_height"], row["defects"]) == ("640", "480", "2")
    largest = [row[f"largest_{name}"] for name in ("left", "top", "width", "height", "area", "peak")]
    assert largest == ["10", "20", "30", "40", "900", "5"]
    assert row["reason"] == ""
    table.close(complete=True)


def test_good_images_and_scores_alone_have_no_defect(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "a.csv")
    table.append(replace(make_prediction("none.png"), defects=()))
    table.append(make_prediction("score.png"))
    table.close(complete=True)
    none, score = rows(tmp_path / "a.csv")
    assert (none["verdict"], none["defects"], none["largest_area"]) == ("good", "0", "")
    assert (score["defects"], score["largest_area"]) == ("", "")


def test_what_was_not_judged_is_a_row_too_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    table = CsvFile(path)
    name = os.fsdecode(b'lot/f\xfcr, "1"\n.png')
    table.miss(Path(name), "it is broken.")
    table.close(complete=True)
    (row,) = rows(path)
    assert row["image"] == 'lot/f\\udcfcr, "1"\n.png'
    assert (row["verdict"], row["score"], row["reason"]) == ("not judged", "", "it is broken.")


def test_an_earlier_table_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for name in ("old.png", "new.png"):
        table = CsvFile(path)
        table.append(make_prediction(name))
        note = table.close(complete=True)
    assert note == f"The answers of an earlier run in {path} were replaced."
    assert [row["image"] for row in rows(path)] == ["new.png"]
    path.write_text("part;verdict\n1;good\n")
    with pytest.raises(StorageError, match=r"a\.csv exists and holds no predictions"):
        CsvFile(path)

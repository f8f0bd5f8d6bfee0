"""0: all good; 1: anomalies; 2: anything was not judged, or went wrong. Whoever sorts parts relies on it."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from client.__main__ import main
from client.predictions.jsonl import read_jsonl
from tests.client.judging.scripted_server import Outputs, Script, grey, scripted_server
from tests.products import ROOT, unused_url

GOOD, BAD = 0, 200  # grey levels, which the scripted server takes for scores; its threshold is 100


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server(Script()) as url:
        yield url


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    (tmp_path / "lot").mkdir()
    for number in range(3):
        grey(GOOD).save(tmp_path / "lot" / f"{number}.png")
    return tmp_path / "lot"


def predict(url: str, *arguments: object) -> Result:
    command = ["predict", *map(str, arguments), "--category", "pill", "--url", url, "--timeout-s", "20"]
    return CliRunner().invoke(main, command)


def test_good_anomalous_and_not_judged(url: str, lot: Path) -> None:
    assert predict(url, lot).exit_code == 0
    grey(BAD).save(lot / "bad.png")
    assert predict(url, lot).exit_code == 1
    (lot / "broken.png").write_bytes(b"none")
    assert predict(url, lot).exit_code == 2  # which wins
    assert predict(url, lot, "--skip-broken").exit_code == 1
    (lot / "bad.png").unlink()
    assert predict(url, lot, "--skip-broken").exit_code == 0
    (lot / "part.gif").touch()
    (lot / "broken.png").unlink()
    assert predict(url, lot).exit_code == 2
    assert predict(url, lot, "--skip-broken").exit_code == 0


def test_where_nothing_was_judged_nothing_is_good(url: str, lot: Path) -> None:
    for image in lot.iterdir():
        image.write_bytes(b"none")
    page = lot.parent / "served.html"
    done = predict(url, lot, "--skip-broken", "--report", page)
    assert (done.exit_code, page.exists()) == (2, False)
    assert f"{page} was not written: no image was judged." in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["gone"],
        ["lot/*.tif"],
        ["lot", "--jsonl", "lot"],
        ["lot", "--jsonl", "a", "--csv", "a"],
        ["lot", "--jsonl", "a", "--report", "a"],
        ["lot", "--report", "lot/0.png"],
        ["lot", "--score-only", "--overlays", "o"],
        ["lot", "--min-area", "-1"],
        ["lot"],  # nobody answers
    ],
)
def test_what_cannot_be_done_is_2(lot: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(lot.parent)
    before = (lot / "0.png").read_bytes()
    done = predict(unused_url(), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert [path.name for path in lot.parent.iterdir()] == ["lot"]
    assert (lot / "0.png").read_bytes() == before


def test_a_fault_of_the_program_is_not_taken_for_anomalies(
    url: str, lot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python exits with 1 for any exception."""
    monkeypatch.setattr("client.pictures.folders.find_images", lambda _: 1 / 0)
    done = predict(url, lot)
    assert done.exit_code == 2
    assert "ZeroDivisionError" in done.stderr


def test_an_interruption_is_2(url: str, lot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("client.pictures.folders.find_images", interrupt)
    done = predict(url, lot)
    assert (done.exit_code, done.stderr) == (2, "Error: Interrupted.\n")


def test_all_that_is_written_says_the_same(url: str, lot: Path) -> None:
    """Over a folder with names of any bytes, a broken image and one that is left out."""
    grey(BAD).save(lot / "b\udcfcd.png")
    (lot / "broken.png").write_bytes(b"none")
    (lot / "part.gif").touch()
    jsonl, table, page = (lot.parent / name for name in ("a.jsonl", "a.csv", "a.html"))
    done = predict(url, str(lot / "*"), "--jsonl", jsonl, "--csv", table, "--report", page)
    assert done.exit_code == 2
    assert [Path(entry.image).name for entry in read_jsonl(jsonl)] == [
        "0.png",
        "1.png",
        "2.png",
        "b\udcfcd.png",
    ]
    with table.open(newline="", encoding="utf-8") as file:
        rows = {Path(row["image"]).name: row["verdict"] for row in csv.DictReader(file)}
    assert rows == {
        "0.png": "good",
        "1.png": "good",
        "2.png": "good",
        "b\\udcfcd.png": "anomalous",
        "broken.png": "not judged",
        "part.gif": "not judged",
    }
    text = page.read_text(encoding="utf-8")
    for name in ("b\\\\udcfcd.png", "broken.png", "part.gif"):
        assert name in text


def test_hundreds_that_are_no_images_are_counted(url: str, lot: Path) -> None:
    for number in range(400):
        (lot / f"{number}.gif").touch()
        (lot / f"{number}.txt").touch()
    done = predict(url, lot)
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert len(lines) < 30
    assert "Error: 380 more were not judged; --csv and --report name them all." in lines
    assert "400 files or folders that may be parts were left out." in lines


def test_json_lines_go_through_a_pipe_whose_reader_leaves(url: str, lot: Path) -> None:
    for number in range(50):
        grey(GOOD).save(lot / f"{number}.png")
    table = lot.parent / "a.csv"
    options = f"--category pill --url {url} --csv {table} --jsonl -"
    command = f"{sys.executable} -m client predict {lot}/*.png {options}"
    whole = subprocess.run(
        ["bash", "-c", f"{command}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count('"image": ') == len(whole.stdout.splitlines()) == 50
    assert "50 judged: 0 anomalous, 50 good." in whole.stderr
    cut = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1; exit $PIPESTATUS"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in cut.stderr
    with table.open(newline="", encoding="utf-8") as file:
        n_rows = len(list(csv.DictReader(file)))
    if cut.returncode:  # the reader left before the last line
        assert "Standard output cannot be written: nobody reads it any more." in cut.stderr
    assert n_rows == (50 if cut.returncode == 0 else n_rows) > 0


@pytest.mark.parametrize(("option", "n_lines"), [("--csv", 1), ("--report", 3)])
def test_a_full_disk_is_told_and_costs_no_other_file(url: str, lot: Path, option: str, n_lines: int) -> None:
    jsonl = lot.parent / "a.jsonl"
    done = predict(url, lot, option, "/dev/full", "--jsonl", jsonl)
    assert done.exit_code == 2
    assert "Error: /dev/full cannot be written (No space left on device)" in done.stderr
    assert len(read_jsonl(jsonl)) == n_lines  # the run ends where an answer cannot be kept everywhere


def test_a_server_that_restarts_and_another_release_cost_no_image(lot: Path) -> None:
    stopping = (grpc.StatusCode.UNAVAILABLE, "Server is stopping, scheduler will not accept new requests")
    script = Script(refuse=lambda number: stopping if number in (2, 3) else None)

    def switch(outputs: Outputs) -> None:
        if len(script.asked) > 1:
            outputs["release_id"] = np.full_like(outputs["release_id"], 78)

    script.change = switch
    with scripted_server(script) as url:
        done = predict(url, lot, "--in-flight", 1)
    assert done.exit_code == 0, done.stderr
    assert "3 judged: 0 anomalous, 3 good." in done.stdout
    assert "The release changed during the run: " in done.stderr


def test_a_folder_that_vanishes_is_one_sentence_and_never_skipped(lot: Path) -> None:
    script = Script(change=lambda _: shutil.rmtree(lot, ignore_errors=True))
    for number in range(3, 40):
        grey(GOOD).save(lot / f"{number}.png")
    table = lot.parent / "a.csv"
    with scripted_server(script) as url:
        done = predict(url, lot, "--in-flight", 1, "--csv", table, "--skip-broken")
    assert done.exit_code == 2
    n_judged = int(done.stdout.split(" judged: ")[0].split()[-1])
    assert (
        f"Error: {lot} is gone or cannot be reached, and {40 - n_judged} of its images were not judged."
        in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1
    assert table.read_text().count(",not judged,") == 40 - n_judged

"""`python -m client report`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.__main__ import main
from client.benchmark.result import write_result
from client.predictions.jsonl import read_jsonl
from tests.client.samples import HEADER, RELEASE, make_bench, make_metrics, make_prediction, write_jsonl


def test_report_writes_the_page_and_prints_the_figures(tmp_path: Path) -> None:
    predictions, page = tmp_path / "predictions.jsonl", tmp_path / "out" / "served.html"
    write_jsonl(
        [
            make_prediction(synthetic=True),
            make_prediction("b.png", defect="dent", score=2, anomalous=True, synthetic=True),
        ],
        predictions,
    )
    metrics = make_metrics(n_test_good=1, n_test_anomalous=1)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_result(make_bench(), tmp_path / "bench.json")
    arguments = ["--predictions", predictions, "--metrics", tmp_path / "metrics.json", "--output", page]
    arguments += ["--bench", tmp_path / "bench.json"]
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert "2 (1 good, 1 defective)" in done.stdout
    assert "SYNTHETIC" in done.stdout
    assert "p50 12.0 ms, p99 36.0 ms" in done.stdout
    assert "Synthetic data" in page.read_text()
    assert "1.20 times the bare chain's" in page.read_text()


def test_report_of_no_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").touch()
    arguments = ["--predictions", tmp_path / "predictions.jsonl", "--output", tmp_path / "served.html"]
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: There are no predictions to report on")
    assert not (tmp_path / "served.html").exists()


@pytest.mark.parametrize("option", ["--metrics", "--bench"])
@pytest.mark.parametrize(
    ("category", "release_id"), [("screw", RELEASE), ("pill", 7)], ids=["category", "release"]
)
def test_figures_of_another_category_or_release_are_refused(
    tmp_path: Path, option: str, category: str, release_id: int
) -> None:
    predictions, other, page = (
        tmp_path / name for name in ("predictions.jsonl", "other.json", "served.html")
    )
    write_jsonl([make_prediction()], predictions)
    if option == "--metrics":
        other.write_text(json.dumps(make_metrics(category=category, release_id=release_id)))
    else:
        write_result(make_bench(header=replace(HEADER, category=category, release_id=release_id)), other)
    arguments = ["--predictions", predictions, option, other, "--output", page]
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert done.exit_code == 2
    assert f"{other} is of {category!r}, release {release_id}; the predictions are of 'pill'" in done.stderr
    assert not page.exists()


def test_the_page_does_not_replace_what_it_is_made_of(tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.jsonl"
    write_jsonl([make_prediction()], predictions)
    arguments = ["--predictions", predictions, "--output", predictions]
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert (done.exit_code, "is what is read; give another file" in done.stderr) == (2, True)
    assert len(read_jsonl(predictions)) == 1


@pytest.mark.parametrize("place", ["/dev/full", "file/served.html", "n" * 300])
def test_a_page_that_cannot_be_written_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    write_jsonl([make_prediction()], Path("predictions.jsonl"))
    done = CliRunner().invoke(main, ["report", "--predictions", "predictions.jsonl", "--output", place])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {place} cannot be written (")

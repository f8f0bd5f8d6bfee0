"""`python -m client report`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from client.__main__ import main
from client.benchmark.result import write_result
from tests.client.samples import make_bench, make_metrics, make_prediction, write_jsonl


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
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: There are no predictions to report on")
    assert not (tmp_path / "served.html").exists()

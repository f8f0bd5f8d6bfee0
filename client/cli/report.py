"""`report`: a page about what the server said."""

from __future__ import annotations

import os
from pathlib import Path

import click

from client.cli.options import PATH


@click.command()
@click.option(
    "--predictions", "predictions_path", required=True, type=PATH, help="What `predict --jsonl` wrote."
)
@click.option("--metrics", "metrics_path", type=PATH, help="metrics.json, to set PyTorch's figures beside.")
@click.option("--bench", "bench_path", type=PATH, help="bench.json, which `bench --output` wrote.")
@click.option("--output", "report_path", required=True, type=PATH, help="The HTML file to write.")
def report(
    predictions_path: Path, metrics_path: Path | None, bench_path: Path | None, report_path: Path
) -> None:
    """Write a page about what the server said, and print the figures.

    It is one file: a table to be sorted and filtered, with defects and pictures of the most anomalous images. All of
    them must be of one category and release.
    """
    from client.console import output
    from client.predictions.comparison import JudgeId, judge_of, read_metrics, require_one_judge
    from client.predictions.jsonl import read_jsonl
    from client.report import Beside, require_place_for_page, summary_table, thumbnails_of, write_report

    for path in (predictions_path, metrics_path, bench_path):
        if path is not None and os.path.realpath(path) == os.path.realpath(report_path):
            raise click.UsageError(f"--output {report_path} is what is read; give another file.")
    require_place_for_page(report_path)
    predictions = read_jsonl(predictions_path)
    others = {}
    metrics = None
    if metrics_path:
        metrics = read_metrics(metrics_path)
        others[metrics_path] = judge_of(metrics)
    speed = None
    if bench_path:
        from client.benchmark.result import read_result
        from client.benchmark.tables import speed_of

        result = read_result(bench_path)
        others[bench_path] = JudgeId(result.header.category, result.header.release_id)
        speed = speed_of(result)
    require_one_judge(predictions, others=others)
    beside = Beside(thumbnails=thumbnails_of(predictions))
    write_report(report_path, predictions=predictions, metrics=metrics, speed=speed, beside=beside)
    output.print(summary_table(predictions, metrics=metrics, speed=speed, report=report_path))

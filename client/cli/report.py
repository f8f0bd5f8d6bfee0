"""`report`: a page about what the server said."""

from __future__ import annotations

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
    """Write a page about what the server said, and print the figures."""
    from client.console import output
    from client.predictions import read_jsonl
    from client.report import read_metrics, summary_table, write_report

    predictions = read_jsonl(predictions_path)
    metrics = read_metrics(metrics_path) if metrics_path else None
    speed = None
    if bench_path:
        from client.benchmark.result import read_result
        from client.benchmark.tables import speed_of

        speed = speed_of(read_result(bench_path))
    write_report(report_path, predictions=predictions, metrics=metrics, speed=speed)
    output.print(summary_table(predictions, metrics=metrics, speed=speed, report=report_path))

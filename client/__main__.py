"""Command line of the client: `python -m client predict | bench | report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

CONTEXT: dict[str, Any] = {"show_default": True, "help_option_names": ["-h", "--help"]}
PATH = click.Path(path_type=Path)

_category = click.option("--category", required=True, help="Published product, e.g. pill, mono.")
_url = click.option(
    "--url",
    default="localhost:8001",
    envvar="ASTMFR_URL",
    show_envvar=True,
    help="host:port of the gRPC endpoint.",
)
_timeout = click.option("--timeout-s", default=10.0, help="Deadline of every call, seconds.")


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Ask a Triton server for verdicts, and measure how fast they come."""


@main.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@_category
@_url
@_timeout
@click.option("--encoded", is_flag=True, help="Send the files as they are and let the server decode them.")
@click.option("--threshold", type=float, help="Image threshold in place of the release's own.")
@click.option("--jsonl", type=PATH, help="Write every answer there, one JSON object a line.")
@click.option("--overlays", type=PATH, help="Write a picture of every answer into this folder.")
@click.option("--skip-broken", is_flag=True, help="Exit with 0 although images are broken.")
def predict(
    paths: tuple[Path, ...],
    category: str,
    url: str,
    timeout_s: float,
    encoded: bool,
    threshold: float | None,
    jsonl: Path | None,
    overlays: Path | None,
    skip_broken: bool,
) -> None:
    """Judge image files and folders; broken images are named, and the exit code is then 1."""
    from client.console import output
    from client.images import find_images
    from client.inference import JudgeClient
    from client.predictions import predict_images, predictions_table, write_jsonl

    images = find_images(paths)
    with JudgeClient(url, category=category, timeout_s=timeout_s) as judge:
        predictions, broken = predict_images(
            judge, images, encoded=encoded, threshold=threshold, overlays_dir=overlays
        )
    if predictions:
        output.print(predictions_table(predictions))
        anomalous = sum(entry.anomalous for entry in predictions)
        output.print(
            f"{len(predictions)} judged: {anomalous} anomalous, {len(predictions) - anomalous} good."
        )
    if jsonl:
        write_jsonl(predictions, jsonl)
    for sentence in broken:
        click.echo(f"{'Skipped' if skip_broken else 'Error'}: {sentence}", err=True)
    if broken:
        click.echo(f"{len(broken)} of {len(images)} images are broken.", err=True)
    if broken and not skip_broken:
        raise SystemExit(1)


@main.command()
@_category
@_url
@_timeout
@click.option("--images", required=True, type=PATH, help="Folder of real images to send.")
@click.option(
    "--build-dir", default="build", type=PATH, help="Holds <category>/teacher.onnx and student.onnx."
)
@click.option("--requests", default=300, type=click.IntRange(1), help="Requests of each measurement.")
@click.option("--concurrency", default=4, type=click.IntRange(1), help="Requests in flight under load.")
@click.option(
    "--threads", default=0, help="Of the bare chain's sessions; 0 is one a core, as the server has."
)
@click.option("--perf-analyzer", help="The binary.  [default: that of `make setup`, else on PATH]")
@click.option("--json", "json_path", type=PATH, help="Write the result there.")
def bench(
    category: str,
    url: str,
    timeout_s: float,
    images: Path,
    build_dir: Path,
    requests: int,
    concurrency: int,
    threads: int,
    perf_analyzer: str | None,
    json_path: Path | None,
) -> None:
    """Measure the ensemble with perf_analyzer, in turns with the bare ONNX Runtime chain."""
    from client.bench import benchmark_category, benchmark_table, write_result
    from client.console import output

    result = benchmark_category(
        category=category,
        url=url,
        timeout_s=timeout_s,
        images_dir=images,
        build=build_dir / category,
        requests=requests,
        concurrency=concurrency,
        threads=threads,
        perf_analyzer=perf_analyzer,
    )
    output.print(benchmark_table(result))
    if json_path:
        write_result(result, json_path)


@main.command()
@click.option(
    "--predictions", "predictions_path", required=True, type=PATH, help="What `predict --jsonl` wrote."
)
@click.option("--metrics", "metrics_path", type=PATH, help="metrics.json, to set PyTorch's figures beside.")
@click.option("--bench", "bench_path", type=PATH, help="What `bench --json` wrote.")
@click.option("--output", "report_path", required=True, type=PATH, help="The HTML file to write.")
def report(
    predictions_path: Path, metrics_path: Path | None, bench_path: Path | None, report_path: Path
) -> None:
    """Write a page about what the server said, and print the figures."""
    from client.bench import read_result
    from client.console import output
    from client.predictions import read_jsonl
    from client.report import read_metrics, summary_table, write_report

    predictions = read_jsonl(predictions_path)
    metrics = read_metrics(metrics_path) if metrics_path else None
    result = read_result(bench_path) if bench_path else None
    write_report(report_path, predictions=predictions, metrics=metrics, bench=result)
    output.print(summary_table(predictions, metrics=metrics, bench=result, report=report_path))


if __name__ == "__main__":
    main(prog_name="python -m client")

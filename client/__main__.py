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
@click.option("--score-only", is_flag=True, help="Ask for scores alone; no map leaves the server.")
@click.option(
    "--in-flight", default=4, type=click.IntRange(1), help="Requests that may be on their way at a time."
)
@click.option("--batch", default=1, type=click.IntRange(1), help="Images a request.")
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Hand images and maps over through system shared memory; the server must be on this host.",
)
@click.option("--load", is_flag=True, help="Let the server load the category when it is not in memory.")
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
    score_only: bool,
    in_flight: int,
    batch: int,
    shared_memory: bool,
    load: bool,
    threshold: float | None,
    jsonl: Path | None,
    overlays: Path | None,
    skip_broken: bool,
) -> None:
    """Judge image files and folders; broken images are named, and the exit code is then 1."""
    from client.console import output
    from client.judging.connection import JudgeClient
    from client.pictures.images import find_images
    from client.predictions import predict_images, predictions_table, write_jsonl

    if score_only and overlays:
        raise click.UsageError(
            "--overlays draws the maps that --score-only does not ask for; leave one of them out."
        )
    images = find_images(paths)
    with JudgeClient(
        url, category=category, timeout_s=timeout_s, shared_memory=shared_memory, load=load
    ) as judge:
        predictions, broken = predict_images(
            judge,
            images,
            encoded=encoded,
            threshold=threshold,
            overlays_dir=overlays,
            score_only=score_only,
            in_flight=in_flight,
            batch=batch,
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
@click.option("--category", help="Published product, e.g. pill, mono.")
@_url
@_timeout
@click.option("--images", type=PATH, help="Folder of real images to send.")
@click.option(
    "--build-dir",
    default="build",
    type=PATH,
    help="Holds <category>/teacher.onnx and student.onnx for the bare chain; without them there is none.",
)
@click.option(
    "--requests", default=500, type=click.IntRange(10), help="Requests of each measurement with a bar."
)
@click.option(
    "--sweep-requests",
    default=200,
    type=click.IntRange(0),
    help="Requests of each point of a sweep; 0 leaves out the sweeps, throughput and the client's ways to ask.",
)
@click.option(
    "--concurrency",
    "concurrencies",
    multiple=True,
    default=(1, 2, 4, 8, 16),
    type=click.IntRange(1),
    help="Requests in flight, a point of the sweep each; give it several times.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    default=(1, 2, 4, 8, 16),
    type=click.IntRange(1),
    help="Images a request, a point of the sweep each; what the category does not take is left out.",
)
@click.option("--perf-analyzer", help="The binary.  [default: that of `make setup`, else on PATH]")
@click.option(
    "--output",
    "output_dir",
    type=PATH,
    help="Write bench.json, bench.csv, bench.md and the plots into this folder.",
)
@click.option(
    "--compare",
    nargs=2,
    type=PATH,
    metavar="A B",
    help="Measure nothing; set two bench.json side by side.",
)
def bench(
    category: str | None,
    url: str,
    timeout_s: float,
    images: Path | None,
    build_dir: Path,
    requests: int,
    sweep_requests: int,
    concurrencies: tuple[int, ...],
    batches: tuple[int, ...],
    perf_analyzer: str | None,
    output_dir: Path | None,
    compare: tuple[Path, Path] | None,
) -> None:
    """Measure the ensemble with perf_analyzer, in turns with the bare ONNX Runtime chain."""
    from client.benchmark.files import write_files
    from client.benchmark.result import read_result
    from client.benchmark.run import Options, benchmark_category
    from client.benchmark.tables import comparison_table, result_tables
    from client.console import output, print_wide

    if compare:
        first, second = map(read_result, compare)
        print_wide(comparison_table(first, second))
        return
    if category is None or images is None:
        raise click.UsageError("A measurement needs --category and --images; --compare needs two files.")
    result = benchmark_category(
        category=category,
        url=url,
        timeout_s=timeout_s,
        images_dir=images,
        build=build_dir / category,
        perf_analyzer=perf_analyzer,
        options=Options(
            requests=requests, sweep_requests=sweep_requests, concurrencies=concurrencies, batches=batches
        ),
    )
    for table in result_tables(result):
        print_wide(table)
    if output_dir:
        for path in write_files(result, output_dir):
            output.print(str(path), soft_wrap=True)


@main.command()
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
    from client.benchmark.result import read_result
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

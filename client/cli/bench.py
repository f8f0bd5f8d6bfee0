"""`bench`: measure a served category, or compare two measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from client.cli.options import AT_LEAST_ONE, PATH, TIMEOUT, URL, utf8
from model_repository.endpoint_options import endpoint_options


@click.command()
@click.option("--category", callback=utf8, help="Published product, e.g. pill, mono.")
@URL
@endpoint_options
@TIMEOUT
@click.option("--images", type=PATH, help="Folder of real images to send.")
@click.option(
    "--build-dir",
    default="build",
    type=PATH,
    help="Holds <category>/teacher.onnx and student.onnx for the bare chain; without them there is none.",
)
@click.option(
    "--requests",
    default=500,
    type=click.IntRange(10),
    help="Requests of each measurement with a bar.",
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
    type=AT_LEAST_ONE,
    help="Requests in flight, a point of the sweep each; give it several times.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    default=(1, 2, 4, 8, 16),
    type=AT_LEAST_ONE,
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
    perf_analyzer: str | None,
    output_dir: Path | None,
    compare: tuple[Path, Path] | None,
    **options: Any,
) -> None:
    """Measure the ensemble with perf_analyzer, in turns with the bare ONNX Runtime chain."""
    from client.benchmark.files import write_files
    from client.benchmark.result import read_result
    from client.benchmark.run import Options, benchmark_category
    from client.benchmark.tables import comparison_table, result_tables
    from client.console import output, print_wide
    from client.files import require_writable_folder

    if compare:
        first, second = map(read_result, compare)
        print_wide(comparison_table(first, second))
        return
    if category is None or images is None:
        raise click.UsageError("A measurement needs --category and --images; --compare needs two files.")
    if output_dir:
        require_writable_folder(output_dir)  # it would be a pity afterwards
    result = benchmark_category(
        category=category,
        url=url,
        timeout_s=timeout_s,
        images_dir=images,
        build=build_dir / category,
        perf_analyzer=perf_analyzer,
        options=Options(**options),
    )
    for table in result_tables(result):
        print_wide(table)
    if output_dir:
        for path in write_files(result, output_dir):
            output.print(str(path), soft_wrap=True, markup=False)

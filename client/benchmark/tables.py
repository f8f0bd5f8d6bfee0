"""A result for people and for spreadsheets: terminal tables, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from client.benchmark.bars import Bar, bars, remark
from client.benchmark.measured import Measured
from client.benchmark.result import BenchResult, Header
from client.console import shown
from client.report import Speed
from model_repository.image_size import size_text

COLUMNS = ("what", "in flight", "batch", "requests", "p50 ms", "p90 ms", "p99 ms", "images/s")
STEP_COLUMNS = ("step", "requests", "batches", "queue ms", "copy in ms", "compute ms", "copy out ms")
CALL_COLUMNS = ("client", "images", "p50 ms", "p99 ms", "images/s", "of the plain call's")
BAR_COLUMNS = ("bar", "limit", "measured", "")
CSV_COLUMNS = (
    *("what", "step", "concurrency", "batch", "requests", "p50_ms", "p90_ms", "p99_ms", "images_per_s"),
    *("executions", "queue_ms", "input_ms", "infer_ms", "output_ms"),
)
TOO_FEW = "too few"


def measurements(result: BenchResult) -> Iterator[tuple[str, Measured]]:
    """Every measurement and what it is of, sweeps last."""
    settings = f", {result.chain_settings}" if result.chain_settings else ""
    named = (
        (f"bare ONNX Runtime chain{settings}", result.bare_chain),
        ("bare chain, ONNX Runtime's defaults", result.default_chain),
        ("ensemble over gRPC", result.ensemble),
        ("ensemble, JPEG files of 1024 x 1024", result.encoded),
        ("decoding and resizing such a file", result.decoding),
        ("ensemble at its best concurrency", result.loaded),
        ("bare chain at its best batch", result.loaded_chain),
    )
    yield from ((name, measured) for name, measured in named if measured is not None)
    for name, points in (
        ("sweep: ensemble, concurrency", result.concurrency_sweep),
        ("sweep: ensemble, batch", result.batch_sweep),
        ("sweep: bare chain, batch", result.chain_batch_sweep),
    ):
        yield from ((name, point) for point in points)


def result_tables(result: BenchResult) -> list[Table]:
    """What a terminal shows: the figures, the time within the server, the client's ways to ask, the bars."""
    limits = []
    for bar in bars(result):
        colour = "yellow" if bar.value is None or bar.limit is None else "green" if bar.cleared else "red"
        *cells, verdict = _bar_cells(bar)
        limits.append([*cells, f"[{colour}]{verdict}[/{colour}]"])
    tables = [
        _table(COLUMNS, _rows(result), title=_title(result.header), caption=provenance(result.header)),
        _table(
            STEP_COLUMNS,
            _step_rows(result),
            title="Where a request's time goes in the server, batch 1, means",
        ),
        _table(CALL_COLUMNS, _call_rows(result), title="This client's ways to ask"),
        _table(BAR_COLUMNS, limits, title="Held to", caption=remark(result), numbers_from=2),
    ]
    return [table for table in tables if table.row_count]


def to_markdown(result: BenchResult) -> str:
    """The result as a page of Markdown."""
    parts = [
        f"# {_title(result.header)}",
        provenance(result.header),
        _markdown(COLUMNS, _rows(result)),
        "## Held to",
        _markdown(BAR_COLUMNS, map(_bar_cells, bars(result))),
    ]
    if said := remark(result):
        parts.append(said)
    if result.ensemble.steps:
        parts += [
            "## Where a request's time goes in the server",
            "Batch 1, one request in flight, means of a request.",
            _markdown(STEP_COLUMNS, _step_rows(result)),
        ]
    if result.calls:
        parts += ["## This client's ways to ask", _markdown(CALL_COLUMNS, _call_rows(result))]
    return "\n\n".join(parts) + "\n"


def to_csv(result: BenchResult) -> str:
    """One line a measurement and one a step of it; empty where there were too few requests."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, measured in measurements(result):
        load = (measured.concurrency, measured.batch)
        figures = (measured.p50_ms, measured.p90_ms, measured.p99_ms, measured.throughput)
        writer.writerow((name, "", *load, measured.requests, *figures, *5 * ("",)))
        for step in measured.steps:
            writer.writerow(
                (name, step.model, *load, step.requests, *4 * ("",), step.executions, *step.times_ms)
            )
    return buffer.getvalue()


def speed_of(result: BenchResult) -> Speed:
    """What the report of a category's predictions shows of a result."""
    ensemble = result.ensemble
    tail = f", p99 {ensemble.p99_ms:.1f} ms" if ensemble.p99_ms else ""
    summary = [("latency over gRPC", f"p50 {ensemble.p50_ms:.1f} ms{tail}")]
    for name, chain, ratio in (
        ("bare ONNX Runtime chain", result.bare_chain, result.p50_ratio),
        ("with its own defaults", result.default_chain, result.default_p50_ratio),
    ):
        if chain is not None:
            summary.append((name, f"p50 {chain.p50_ms:.1f} ms; the ensemble takes {ratio:.2f} times as long"))
    busiest = result.loaded or ensemble
    summary.append(("throughput", f"{busiest.throughput:.0f} images/s with {busiest.concurrency} in flight"))
    return Speed(
        headings=["", *_without_requests(COLUMNS)[1:]],
        rows=[_without_requests(row) for row in _rows(result)],
        p50_ratio=result.p50_ratio,
        default_p50_ratio=result.default_p50_ratio,
        provenance=provenance(result.header),
        summary=summary,
    )


def _without_requests(cells: Sequence[str]) -> list[str]:
    return [cell for cell, column in zip(cells, COLUMNS, strict=True) if column != "requests"]


def comparison_table(first: BenchResult, second: BenchResult) -> Table:
    """Two results side by side; measurements that only one of them has are left out."""
    rows = []
    # Settings of a chain may differ between runs: they are compared by what was measured.
    others = {_key(name, measured): measured for name, measured in measurements(second)}
    for name, measured in measurements(first):
        if other := others.get(_key(name, measured)):
            latencies = _side_by_side(measured.p50_ms, other.p50_ms, "{:.2f}")
            throughputs = _side_by_side(measured.throughput, other.throughput, "{:.1f}")
            rows.append([name, str(measured.concurrency), str(measured.batch), *latencies, *throughputs])
    for bar, other_bar in zip(bars(first), bars(second), strict=True):
        if bar.value is not None and other_bar.value is not None:
            rows.append([bar.name, "", "", *_side_by_side(bar.value, other_bar.value, "{:.2f}")])
    return _table(
        ("what", "in flight", "batch", "p50 ms A", "p50 ms B", "B / A", "images/s A", "images/s B", "B / A"),
        rows,
        title=f"A: {_title(first.header)}\nB: {_title(second.header)}",
        caption=f"A: {provenance(first.header)}\nB: {provenance(second.header)}",
    )


def provenance(header: Header) -> str:
    """The small print under every table."""
    where = "" if header.server_is_here else "; THE SERVER IS ELSEWHERE, on a machine of its own"
    packages = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    return (
        f"{header.machine}, load {header.machine.load:.2f}, {header.machine.system}{where}. {header.server}, "
        f"{header.perf_analyzer}, {packages}. Release {header.release_id}, {header.n_images} images in turn, "
        f"{header.started}."
    )


def _title(header: Header) -> str:
    return (
        f"{header.category}, {header.preset or 'own'} preset, {header.precision}, {size_text(header.image_size)} px, "
        f"platform {header.platform}"
    )


def _side_by_side(first: float, second: float, form: str) -> list[str]:
    return [form.format(first), form.format(second), f"{second / first:.2f}"]


def _key(name: str, measured: Measured) -> tuple[str, int, int]:
    return name.split(",")[0] if "bare" in name else name, measured.concurrency, measured.batch


def _rows(result: BenchResult) -> Iterator[list[str]]:
    for name, measured in measurements(result):
        counts = (measured.concurrency, measured.batch, measured.requests)
        latencies = (measured.p50_ms, measured.p90_ms, measured.p99_ms)
        yield [name, *map(str, counts), *map(milliseconds, latencies), f"{measured.throughput:.1f}"]


def _step_rows(result: BenchResult) -> Iterator[list[str]]:
    for step in result.ensemble.steps:
        times = (f"{time:.3f}" for time in step.times_ms)
        yield [step.model, str(step.requests), str(step.executions), *times]


def _call_rows(result: BenchResult) -> Iterator[list[str]]:
    for call in result.calls:
        latencies = (milliseconds(call.p50_ms), milliseconds(call.p99_ms))
        of_plain = call.throughput / result.calls[0].throughput
        yield [call.name, str(call.requests), *latencies, f"{call.throughput:.1f}", f"{of_plain:.2f}"]


def _bar_cells(bar: Bar) -> list[str]:
    return [bar.name, bar.limit_text, shown(bar.value, "{:.2f}", missing="-"), bar.verdict]


def milliseconds(value: float | None) -> str:
    """A latency in milliseconds, or that there were too few requests for it."""
    return shown(value, "{:.2f}", missing=TOO_FEW)


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str,
    caption: str | None = None,
    numbers_from: int = 1,
) -> Table:
    table = Table(title=title, caption=caption)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index >= numbers_from and column else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruler = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ruler, *rows))

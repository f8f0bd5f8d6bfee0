"""A result as files."""

from __future__ import annotations

from pathlib import Path

from client.benchmark.plots import draw_all
from client.benchmark.result import BenchResult, write_result
from client.benchmark.tables import to_csv, to_markdown
from client.files import write_text


def write_files(result: BenchResult, folder: Path) -> list[Path]:
    """bench.json, bench.csv, bench.md and the plots.

    Raises:
        BenchmarkError: matplotlib is missing; all but the plots are written before.
    """
    written = [folder / f"bench.{suffix}" for suffix in ("json", "csv", "md")]
    write_result(result, written[0])
    write_text(written[1], to_csv(result))
    write_text(written[2], to_markdown(result))
    return [*written, *draw_all(result, folder)]

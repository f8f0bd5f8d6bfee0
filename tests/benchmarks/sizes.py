"""How latency grows with the image, 128 to 384 px: ensemble and bare chain: `make bench-all WHAT=sizes`.

A category of each size is trained for one step, as its verdicts do not matter here, exported, published into a
repository of its own and measured there as `python -m client bench` does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import bars
from client.benchmark.files import write_files
from client.benchmark.plots import draw_growth, fit_line
from client.benchmark.result import BenchResult
from client.benchmark.run import Options, benchmark_category
from client.console import shown
from model_repository.image_size import n_pixels
from tests.benchmarks.releases import serving
from tests.benchmarks.results import FOLDER, run, write_results
from tests.products import ROOT, copy_backends, make_product

SIZES = (128, 256, 384)
TIMEOUT_S = 120
KILO = 1000


def measure(size: int, preset: str, options: Options) -> BenchResult:
    """Train, publish and measure a category of one image size."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "model_repository"
        copy_backends(repository)
        overrides: dict[str, Any] = {"image_size": size, "steps": 1, "batch_size": 2}
        if preset == "paper":
            overrides["weights"] = "random"
        product = make_product("plate", preset, overrides, repository, n_train=4, n_test_good=4)
        with serving(repository, log=Path(folder) / "tritonserver.log") as server:
            return benchmark_category(
                category=product.name,
                url=server.grpc_url,
                timeout_s=TIMEOUT_S,
                images_dir=product.data.root / "test",
                build=product.build,
                perf_analyzer=str(ROOT / ".triton/bin/perf-analyzer"),
                options=options,
            )


def lines(results: Sequence[BenchResult]) -> dict[str, list[tuple[float, float]]]:
    """p50 in milliseconds against thousands of pixels, of the ensemble and of the bare chain."""
    points: dict[str, list[tuple[float, float]]] = {"ensemble": [], "bare chain": []}
    for result in results:
        thousands = n_pixels(result.header.image_size) / KILO
        points["ensemble"].append((thousands, result.ensemble.p50_ms))
        if result.bare_chain is not None:
            points["bare chain"].append((thousands, result.bare_chain.p50_ms))
    return points


def draw(results: Sequence[BenchResult], path: Path) -> None:
    """Points and fitted lines."""
    figure = Figure(figsize=(8, 5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for (name, points), marker in zip(lines(results).items(), "os", strict=True):
        draw_growth(axes, points, name=name, marker=marker)
    axes.set_xticks(
        [n_pixels(result.header.image_size) / KILO for result in results],
        [f"{result.header.image_size}²" for result in results],
    )
    axes.set_xlabel("pixels of an image; each: a thousand of them")
    axes.set_ylabel("p50 of one image, ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.set_title(f"{results[0].header.preset}\n{results[0].header.machine}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def results_table(results: Sequence[BenchResult]) -> Table:
    """A line a size."""
    table = Table(title=f"{results[0].header.preset}, batch 1, one request in flight")
    for heading in (
        "image",
        "bare chain p50 ms",
        "ensemble p50 ms",
        "ratio",
        "p99 / p50",
        "added ms",
        "short of",
    ):
        table.add_column(heading, justify="right")
    for result in results:
        chain = result.bare_chain
        table.add_row(
            f"{result.header.image_size} px",
            f"{chain.p50_ms:.2f}" if chain else "-",
            f"{result.ensemble.p50_ms:.2f}",
            shown(result.p50_ratio, "{:.2f}", missing="-"),
            shown(result.tail_ratio, "{:.2f}", missing="too few"),
            f"{result.ensemble.p50_ms - chain.p50_ms:.2f}" if chain else "-",
            "; ".join(bar.name for bar in bars(result) if bar.value is not None and not bar.cleared)
            or "nothing",
        )
    return table


def main() -> None:
    """Measure every size, print the table, write JSON, plots and each size's own files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="edge", choices=("edge", "paper"))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="sides of an image, pixels")
    parser.add_argument("--requests", type=int, default=500, help="of each measurement (default 500)")
    parser.add_argument(
        "--sweep-requests", type=int, default=0, help="of each point of a sweep; 0: none (default)"
    )
    given = parser.parse_args()
    folder = FOLDER / f"sizes-{given.preset}"
    options = Options(requests=given.requests, sweep_requests=given.sweep_requests)
    results = []
    for size in given.sizes:
        results.append(measure(size, given.preset, options))
        write_files(results[-1], folder / str(size))
    Console().print(results_table(results))
    fits = {}
    if len(results) > 1:
        for name, points in lines(results).items():
            slope, offset = fit_line(points)
            fits[name] = {"ms": offset, "ms_per_thousand_pixels": slope}
            print(f"{name}: {offset:.2f} ms + {slope:.3f} ms for every thousand pixels")
    write_results(folder / "sizes.json", {"preset": given.preset, "fits": fits}, [])
    draw(results, folder / "sizes.png")
    print(f"Written: {folder}")


if __name__ == "__main__":
    run(main)

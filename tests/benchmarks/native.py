"""Pictures of a camera's size, judged at their own: `make bench-all WHAT=native`.

A category of `edge` is trained on crops for one step, as its verdicts do not matter here, exported and served. Pictures
of 1 to 20 megapixels are judged by the ensemble, as pixels and as JPEG files, and by the bare chain in one pass,
all in turns. Memory is the proportional set size (PSS) of the server's processes, the highest that was seen.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from client import JudgeClient
from client.benchmark.bars import Bar
from client.benchmark.chain import BareChain, ChainSettings, Spinning
from client.benchmark.machine import usable_cores
from tests.benchmarks.archive.commands import memory_of
from tests.benchmarks.meanwhile import looking
from tests.benchmarks.releases import serving
from tests.benchmarks.results import FOLDER, run, time_in_turns, write_results
from tests.products import copy_backends, make_product

SIZES = ((1024, 1024), (2464, 2048), (3648, 5472))  # rows and columns
TIMEOUT_S = 300
RATIO_BAR, MEMORY_BAR_MIB = 1.15, 2000
BETWEEN_LOOKS_S = 0.05
TRAINING: dict[str, Any] = {
    "image_size": "native", "crop_size": 128, "steps": 1, "batch_size": 2, "weights": "random", "sharpening": (2.0,),
}  # fmt: skip


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """[H, W, 3] with soft structure, as of a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(soft)


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """The picture as a camera's file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


@contextmanager
def watched_memory(pid: int) -> Iterator[list[float]]:
    """MiB of a process and all that it has started, looked at again and again."""
    seen = [memory_of(pid)]
    with looking(lambda: seen.append(memory_of(pid)), every_s=BETWEEN_LOOKS_S):
        yield seen


def measure(judge: JudgeClient, chain: BareChain, pixels: NDArray[np.uint8], turns: int) -> dict[str, Any]:
    """Milliseconds a megapixel of each way to judge a picture [H, W, 3]."""
    size = pixels.shape[:2]
    file, whole = as_jpeg(pixels), pixels[None]
    taken = time_in_turns(
        {
            "bare chain": lambda: chain.run(whole),
            "ensemble": lambda: judge.judge(pixels),
            "encoded": lambda: judge.judge(file),
            "decoding": lambda: Image.open(io.BytesIO(file)).load(),
        },
        turns=turns,
        calls=1,
    )
    megapixels = size[0] * size[1] / 1e6
    ratios = [ours / theirs for ours, theirs in zip(taken["ensemble"], taken["bare chain"], strict=True)]
    return {
        "height": size[0],
        "width": size[1],
        "ms_per_megapixel": {name: statistics.median(times) / megapixels for name, times in taken.items()},
        "ratio": statistics.median(ratios),
    }


def results_table(results: list[dict[str, Any]]) -> Table:
    """A line a size."""
    names = list(results[0]["ms_per_megapixel"])
    table = Table(title="ms a megapixel, one picture after the other")
    for heading in ("picture", *names, "ensemble / chain", "server, MiB"):
        table.add_column(heading, justify="right")
    for result in results:
        times = (f"{result['ms_per_megapixel'][name]:.0f}" for name in names)
        size = f"{result['width']} x {result['height']}"
        table.add_row(size, *times, f"{result['ratio']:.2f}", f"{result['server_mib']:.0f}")
    return table


def main() -> None:
    """Measure every size, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of each size (default 5)")
    parser.add_argument("--sizes", nargs="+", default=[f"{h}x{w}" for h, w in SIZES], help="HEIGHTxWIDTH")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "model_repository"
        copy_backends(repository)
        product = make_product("plate", "edge", TRAINING, repository, n_train=8, n_test_good=2)
        results = []
        with serving(repository, log=Path(folder) / "tritonserver.log") as server:
            chain = BareChain(product.build, ChainSettings(usable_cores(), Spinning.DURING_RUNS))
            with JudgeClient(server.grpc_url, category=product.name, timeout_s=TIMEOUT_S) as judge:
                for text in given.sizes:
                    height, width = map(int, text.split("x"))
                    pixels = picture(height, width)
                    with watched_memory(
                        server.pid
                    ) as seen:  # apart: looking at it takes time of the processors
                        for sent in (pixels, as_jpeg(pixels), pixels):
                            judge.judge(sent)
                    memory = {"server_mib": max(seen), "server_mib_before": seen[0]}
                    results.append({**measure(judge, chain, pixels, given.turns), **memory})
    Console().print(results_table(results))
    camera = [result for result in results if (result["height"], result["width"]) == SIZES[1]]
    bars = (
        [
            Bar("ensemble / bare chain at 5 megapixels", camera[0]["ratio"], RATIO_BAR, True),
            Bar("server's memory at 5 megapixels, MiB", camera[0]["server_mib"], MEMORY_BAR_MIB, True),
        ]
        if camera
        else []
    )
    write_results(FOLDER / "native" / "native.json", {"sizes": results}, bars)


if __name__ == "__main__":
    run(main)

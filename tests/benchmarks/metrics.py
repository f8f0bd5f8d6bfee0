"""Seconds, memory and values of the pixel measures, beside others' on the same maps: `make bench-all WHAT=metrics`.

Every contender makes the same seeded maps in a process of its own, so that the peak memory is its alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

MIB = 2**20
GOOD_SHARE = 467 / 1725  # of the test images of MVTec AD
KINDS, NOISE_SIDE = 8, 32
Measures = dict[str, float]


def seeded_maps(n_images: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Smooth noise, higher inside one to three elliptical defects of 0.01 to 30 % of the pixels; masks of these."""
    rng = np.random.default_rng(0)
    maps = np.empty((n_images, size, size), np.float32)
    masks = np.zeros((n_images, size, size), bool)
    rows, columns = np.mgrid[:size, :size]
    for index in range(n_images):
        noise = rng.random((NOISE_SIDE, NOISE_SIDE)).astype(np.float32)
        maps[index] = ndimage.zoom(noise, size / NOISE_SIDE, order=1)
        maps[index] += rng.random((size, size), dtype=np.float32) / 10
        if index < round(GOOD_SHARE * n_images):
            continue
        for _ in range(rng.integers(1, 4)):
            row, column = rng.random(2) * size
            high, wide = size * 0.2 * rng.random(2) ** 2 + 2
            masks[index] |= ((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 < 1
        maps[index] += masks[index] * np.float32(rng.random())
    return maps, masks


def ours(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Measures:
    """The whole test set."""
    from train.evaluation.pixel_metrics import PixelScores

    defective = masks.any(axis=(1, 2))
    pixels = PixelScores(maps, masks, good=np.flatnonzero(~defective))
    measures = pixels.measure(np.flatnonzero(defective))
    assert measures is not None
    return {"auroc": measures.auroc, "pro": measures.pro}


def ours_broken_down(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Measures:
    """The whole test set, eight defect kinds and three sizes: all that `python -m train evaluate` measures."""
    from train.evaluation.pixel_metrics import PixelScores

    defective = np.flatnonzero(masks.any(axis=(1, 2)))
    pixels = PixelScores(maps, masks, good=np.flatnonzero(~masks.any(axis=(1, 2))))
    measures = pixels.measure(defective)
    shares = masks[defective].mean(axis=(1, 2))
    sizes = np.digitize(shares, [0.05, 0.2])
    for subset in [defective[kind::KINDS] for kind in range(KINDS)] + [
        defective[sizes == i] for i in range(3)
    ]:
        pixels.measure(subset)
    assert measures is not None
    return {"auroc": measures.auroc, "pro": measures.pro}


def adeval(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Measures:
    """ADEval on the CPU, with its default of 1,000 bins between the lowest and the highest score."""
    np.trapz = np.trapezoid  # type: ignore[attr-defined]  # its old name, which ADEval 1.1.0 still calls
    from adeval import EvalAccumulator

    accumulator = EvalAccumulator(float(maps.min()), float(maps.max()))
    for anomaly_map, mask in zip(maps, masks, strict=True):
        accumulator.add_anomap(anomaly_map, mask.astype(np.uint8))
    summary = accumulator.summary()
    return {"auroc": summary["p_auroc"], "pro": summary["p_aupro"]}


def scikit_learn(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Measures:
    """scikit-learn, which has AUROC alone."""
    from sklearn.metrics import roc_auc_score

    return {"auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}


CONTENDERS: dict[str, tuple[str, Callable[..., Measures]]] = {
    "ours": ("ours", ours),
    "ours_broken_down": (f"ours, also by {KINDS} kinds and 3 sizes", ours_broken_down),
    "adeval": ("ADEval", adeval),
    "scikit_learn": ("scikit-learn, AUROC alone", scikit_learn),
}


def peak_memory_mib() -> float:
    """This process's own peak; `ru_maxrss` would start at that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024  # from KiB


def run_one(contender: str, n_images: int, size: int) -> dict[str, Any]:
    """Measure one contender in this process."""
    maps, masks = seeded_maps(n_images, size)
    given = (maps.nbytes + masks.nbytes) / MIB
    started, started_cpu = time.perf_counter(), time.process_time()
    measures = CONTENDERS[contender][1](maps, masks)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    peak = peak_memory_mib()
    return {
        **measures,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak,
        "given_mib": given,
    }


def run_apart(contender: str, n_images: int, size: int) -> dict[str, Any]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--run", contender]
    command += ["--images", str(n_images), "--size", str(size)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True)
    return dict(json.loads(done.stdout))


def table_of(results: dict[str, dict[str, Any]], n_images: int, size: int) -> Table:
    """One line a contender; differences are to ours."""
    given = results["ours"]["given_mib"]
    table = Table(
        title=f"Pixel measures of {n_images:,} maps of {size} x {size} ({given:.0f} MiB with their masks)"
    )
    for column in ("", "seconds", "peak MiB", "AUROC", "PRO to 30 %", "AUROC differs", "PRO differs"):
        table.add_column(column, justify="left" if not column else "right")
    for contender, measured in results.items():
        cells = [CONTENDERS[contender][0], f"{measured['seconds']:.1f}", f"{measured['peak_mib']:.0f}"]
        cells += [f"{measured[key]:.6f}" if key in measured else "" for key in ("auroc", "pro")]
        cells += [
            f"{measured[key] - results['ours'][key]:+.1e}" if key in measured and contender != "ours" else ""
            for key in ("auroc", "pro")
        ]
        table.add_row(*cells)
    return table


def main() -> None:
    """Run every contender that is installed and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1725, help="maps (MVTec AD's test set has 1,725)")
    parser.add_argument("--size", type=int, default=256, help="side of a map in pixels, a multiple of 32")
    parser.add_argument("--scikit-learn", action="store_true", help="run it too; 1,725 maps need 8 GB")
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(run_one(asked.run, asked.images, asked.size)))
        return
    console = Console(stderr=True)
    contenders = ["ours", "ours_broken_down"]
    if importlib.util.find_spec("adeval"):
        contenders.append("adeval")
    else:
        console.print("ADEval is not installed: pip install '.[bench-peers]'", style="yellow")
    if asked.scikit_learn:
        contenders.append("scikit_learn")
    results = {}
    for contender in contenders:
        with console.status(CONTENDERS[contender][0]):
            results[contender] = run_apart(contender, asked.images, asked.size)
    Console(width=120).print(table_of(results, asked.images, asked.size))


if __name__ == "__main__":
    main()

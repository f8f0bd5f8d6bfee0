"""A whole `train fit` of the synthetic pill: seconds, images/s of its loop, and its measures on the card and a CPU."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.benchmarks.gpu_check.work import TINY, Asked, Results
from train.data.category import CategoryData, read_category
from train.data.sources.synthetic.dataset import render_category
from train.runs import evaluate_category, fit_category
from train.support.devices import Runtime

PILL_IMAGES = 267  # good images that MVTec AD's pill has to train on
LOOK_S = 0.5
MEASURES = ("image_auroc", "pixel_auroc", "pro")


class LossesWatch(threading.Thread):
    """Writes down when how many steps were taken, so that a run that is stopped leaves its speed."""

    def __init__(self, run_dir: Path, results: Results, *, batch_size: int) -> None:
        super().__init__(daemon=True)
        self.run_dir, self.results, self.batch_size = run_dir, results, batch_size
        self.started, self.ended = perf_counter(), threading.Event()
        self.seen: list[tuple[float, int]] = []

    def run(self) -> None:
        """Look until the end of the run."""
        while not self.ended.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Count the rows of losses.csv; from the first steps on they make a speed."""
        rows = [path.read_bytes().count(b"\n") - 1 for path in self.run_dir.rglob("losses.csv")]
        n_steps = max(rows, default=0)
        if n_steps > 0 and (not self.seen or n_steps > self.seen[-1][1]):
            self.seen.append((perf_counter() - self.started, n_steps))
            self.results.put(steps=n_steps, loop_images_per_s=loop_rate(self.seen, self.batch_size))


def loop_rate(seen: list[tuple[float, int]], batch_size: int) -> float | None:
    """Images/s between the first quarter of what was seen, which warms up, and the end."""
    (first_s, first), (last_s, last) = seen[len(seen) // 4], seen[-1]
    return batch_size * (last - first) / (last_s - first_s) if last_s > first_s else None


def measure(asked: Asked, results: Results, *, preset: str) -> None:
    """Fit and judge on the device, then judge the same checkpoint on the CPU."""
    data = pill(asked)
    config = asked.config(preset, **({"steps": 6, "validation_interval": 2} if asked.tiny else {}))
    run_dir = asked.work / "runs" / preset / data.category
    shutil.rmtree(run_dir, ignore_errors=True)  # of a check that was stopped, its fit would go on
    overrides = changed(config, preset)
    results.put(images=len(data.train_good), image_size=config.image_size, weights=config.weights)
    results.put(epochs=config.epochs, batch_size=config.batch_size)
    watch = LossesWatch(run_dir, results, batch_size=config.batch_size)
    watch.start()
    started = perf_counter()
    fit_category(
        data, preset=preset, overrides=overrides, run_dir=run_dir, runtime=Runtime(asked.device), force=True
    )
    results.put(fit_s=perf_counter() - started)
    watch.ended.set()
    watch.join()
    watch.look()
    for device in dict.fromkeys((asked.device, "cpu")):
        started = perf_counter()
        evaluate_category(data, run_dir=run_dir, runtime=Runtime(device), force=True)
        metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        judged = {name: metrics[name] for name in MEASURES}
        results.put(**{f"judged_on_{device}": judged, f"judging_on_{device}_s": perf_counter() - started})


def changed(config: Any, preset: str) -> dict[str, Any]:
    """The fields in which a configuration differs from its preset."""
    from train.config import PRESETS

    before = PRESETS[preset].model_dump()
    return {name: value for name, value in config.model_dump().items() if value != before[name]}


def pill(asked: Asked) -> CategoryData:
    """The synthetic pill with as many good images as MVTec AD's; rendered once."""
    counts = (
        {"image_size": TINY["image_size"], "n_train": 10, "n_test_good": 2, "n_per_defect": 1}
        if asked.tiny
        else {"n_train": PILL_IMAGES, "n_test_good": 20, "n_per_defect": 4}
    )
    root = render_category(asked.work / "data", category="pill", **counts)
    return read_category(root, dataset="synthetic", category="pill")

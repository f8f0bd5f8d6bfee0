"""Hand-made verdicts, predictions and figures for tests without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console, RenderableType

from client.bench import BenchResult, Measured
from client.inference import Verdict
from client.predictions import Prediction

RELEASE = 8_765_432_109_876_543_210


def make_verdict(anomaly_map: NDArray[np.float32], *, threshold: float = 1.0) -> Verdict:
    score = float(anomaly_map.max())
    return Verdict(
        score=score,
        threshold=threshold,
        anomalous=score > threshold,
        release_id=RELEASE,
        anomaly_map=anomaly_map.astype(np.float32),
        mask=anomaly_map > threshold,
        latency_ms=1.5,
    )


def make_prediction(
    image: str = "data/pill/test/good/000.png",
    *,
    defect: str | None = "good",
    score: float = 0.5,
    anomalous: bool = False,
    release_id: int = RELEASE,
    synthetic: bool = False,
    overlay: str | None = None,
) -> Prediction:
    return Prediction(
        image=image,
        category="pill",
        defect=defect,
        score=score,
        threshold=1.0,
        anomalous=anomalous,
        release_id=release_id,
        latency_ms=2.5,
        synthetic=synthetic,
        overlay=overlay,
    )


def make_bench() -> BenchResult:
    def measured(p50_ms: float) -> Measured:
        return Measured(
            p50_ms=p50_ms, p90_ms=2 * p50_ms, p99_ms=3 * p50_ms, throughput=1000 / p50_ms, requests=30
        )

    return BenchResult(
        category="pill",
        ensemble=measured(12.0),
        bare_chain=measured(10.0),
        tuned_chain=measured(9.0),
        loaded=measured(8.0),
        concurrency=4,
        p50_ratio=1.2,
        tuned_p50_ratio=1.33,
        throughput_ratio=1.25,
        threads=2,
        bare_chain_spinning="never",
        image_size=128,
        perf_analyzer="Perf Analyzer Version 2.51.0",
        machine="A processor, 2 cores",
    )


def make_metrics(**changes: Any) -> dict[str, Any]:
    """The part of metrics.json that the client reads."""
    metrics = {
        "n_train": 85,
        "seconds_train": 61.0,
        "preset": "edge",
        "image_auroc": 0.9375,
    }
    return metrics | changes


def save_image(path: Path, size: tuple[int, int] = (20, 10), colour: str = "teal") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def printed(renderable: RenderableType, *, width: int = 200) -> str:
    """What a terminal of that width would show."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()

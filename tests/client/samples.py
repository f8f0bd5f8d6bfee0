"""Hand-made verdicts, predictions and figures for tests without a server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console, RenderableType

from client.benchmark.calls import CallMeasured
from client.benchmark.chain import ChainSettings, Spinning
from client.benchmark.machine import Machine
from client.benchmark.measured import Measured
from client.benchmark.result import BenchResult, Header
from client.benchmark.statistics import StepTimes
from client.core.verdicts import Verdict
from client.predictions.jsonl import AnswerFile
from client.predictions.prediction import Prediction

RELEASE = 8_765_432_109_876_543_210


def make_verdict(
    anomaly_map: NDArray[np.float32], *, threshold: float = 1.0, original_size: tuple[int, int] | None = None
) -> Verdict:
    score = float(anomaly_map.max())
    return Verdict(
        score=score,
        threshold=threshold,
        anomalous=score > threshold,
        release_id=RELEASE,
        anomaly_map=anomaly_map.astype(np.float32),
        mask=anomaly_map > threshold,
        latency_ms=1.5,
        original_size=original_size or (anomaly_map.shape[1], anomaly_map.shape[0]),
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


def write_jsonl(predictions: Iterable[Prediction], path: Path) -> None:
    """What `predict --jsonl` writes of these answers."""
    answers = AnswerFile(path)
    for prediction in predictions:
        answers.append(prediction)
    answers.close(complete=True)


def make_measured(p50_ms: float, **changes: Any) -> Measured:
    """Latencies whose p90 is twice and whose p99 three times the p50."""
    figures: dict[str, Any] = {
        "requests": 500,
        "batch": 1,
        "concurrency": 1,
        "p50_ms": p50_ms,
        "p90_ms": 2 * p50_ms,
        "p99_ms": 3 * p50_ms,
        "throughput": 1000 / p50_ms,
    }
    return Measured(**(figures | changes))


STEPS = (
    StepTimes(
        "teacher", requests=500, executions=500, queue_ms=0.1, input_ms=0.2, infer_ms=4.0, output_ms=0.3
    ),
    StepTimes(
        "student", requests=500, executions=250, queue_ms=0.5, input_ms=0.2, infer_ms=5.0, output_ms=0.1
    ),
)
HEADER = Header(
    category="pill",
    preset="edge",
    precision="fp32",
    platform="python",
    release_id=RELEASE,
    image_size=128,
    n_images=16,
    started="2026-01-02T03:04:05+00:00",
    machine=Machine("A processor", cores=2, memory_gib=24.0, gpu="", load=0.25, system="Linux 6"),
    server_is_here=True,
    server="triton 2.51.0",
    perf_analyzer="Perf Analyzer Version 2.51.0",
    versions={"python": "3.11.7", "onnxruntime": "1.30"},
)


def make_bench(**changes: Any) -> BenchResult:
    """A whole benchmark: p50 1.2, p99 3, throughput 1.25 and files 0.9 times what they are held to."""
    figures: dict[str, Any] = {
        "header": HEADER,
        "ensemble": make_measured(12.0, steps=STEPS),
        "bare_chain": make_measured(10.0),
        "default_chain": make_measured(15.0),
        "encoded": make_measured(18.0),
        "decoding": make_measured(8.0),
        "chain_settings": ChainSettings(2, Spinning.DURING_RUNS),
        "concurrency_sweep": (
            make_measured(12.0, requests=200, p99_ms=None),
            make_measured(20.0, requests=200, p99_ms=None, concurrency=2, throughput=125.0),
        ),
        "batch_sweep": (make_measured(12.0), make_measured(20.0, batch=2, throughput=100.0)),
        "chain_batch_sweep": (make_measured(10.0), make_measured(19.0, batch=2, throughput=105.0)),
        "loaded": make_measured(20.0, concurrency=2, throughput=125.0),
        "loaded_chain": make_measured(10.0, throughput=100.0),
        "calls": (
            CallMeasured("plain call", requests=60, p50_ms=12.0, p99_ms=None, throughput=80.0),
            CallMeasured("score only", requests=60, p50_ms=11.0, p99_ms=None, throughput=88.0),
        ),
    }
    return BenchResult(**(figures | changes))


def make_metrics(**changes: Any) -> dict[str, Any]:
    """The part of metrics.json that the client reads."""
    metrics = {
        "category": "pill",
        "release_id": RELEASE,
        "n_test_good": 2,
        "n_test_anomalous": 3,
        "threshold": 1.0,
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

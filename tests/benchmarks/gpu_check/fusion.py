"""Images/s of the fusion alone: processes of plain Python, then the embedded server over gRPC."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from model_repository.distance_fusion.map_fusion import Calibration
from model_repository.image_size import square_side
from tests.benchmarks.distances import batch_distances, calibration_of, score_batch, verdict_of
from tests.benchmarks.gpu_check.luggage import SERVER
from tests.benchmarks.gpu_check.work import IMAGE_SIZE, Asked, Results

PROCESSES = (1, 4, 8)
BATCH = 8  # images a request
IN_FLIGHT = 3  # requests of a client
ANSWER_S = 10.0
RELEASE = 1
MODES = ("maps", "scores")


def measure(asked: Asked, results: Results) -> None:
    """With 1, 4 and 8 processes or instances, with and without maps; the server last, for it may not start."""
    counts = (1, 2) if asked.tiny else PROCESSES
    size, seconds = (64, 0.2) if asked.tiny else (IMAGE_SIZE, 2.0)
    results.put(image_size=size, batch=BATCH, cores=len(os.sched_getaffinity(0)))
    calibration = calibration_of(size)
    python: dict[str, Any] = {}
    for count in counts:
        works = {mode: functools.partial(fuse_for, calibration, mode, seconds) for mode in MODES}
        for mode, summed in together(works, count):
            python[f"{count} {mode}"] = summed
            results.put(python=python)
    if not prepare_server(asked.work):
        results.put(note=f"No tritonserver here and no {SERVER}: the fusion ran in plain Python alone.")
        return
    served: dict[str, Any] = {}
    for count in counts:
        measure_server(count, calibration, served, asked, results, seconds=seconds)


def fuse_for(calibration: Calibration, mode: str, seconds: float, begin: float) -> float:
    """Images/s of one process with one thread that does what the server's process does, without the server."""
    distances = batch_distances(square_side(calibration.image_size), BATCH)
    run = functools.partial(verdict_of if mode == "maps" else score_batch, distances, calibration)
    run()
    return BATCH * count_runs(run, seconds=seconds, begin=begin)


def count_runs(run: Callable[[], object], *, seconds: float, begin: float) -> float:
    """Runs a second from a moment on, by the system's clock, that all processes wait for."""
    time.sleep(max(0.0, begin - time.time()))
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        run()
        runs += 1
    return runs / (time.perf_counter() - started)


def together(works: Mapping[str, Callable[[float], float]], count: int) -> Iterator[tuple[str, float]]:
    """Each of `works` in so many processes of one thread at the same time, one after the other: the sum of each."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, work in works.items():
            list(pool.map(ready, [0.3] * count))
            yield name, sum(pool.map(work, [time.time() + 0.5] * count))


def ready(seconds: float) -> None:
    """Keep a process busy until all others are there and have imported what they need."""
    time.sleep(seconds)


def prepare_server(work: Path) -> bool:
    """Whether there is a tritonserver; the one that travelled is unpacked, and put on PATH, where `deploy` finds it."""
    folder = (work / "triton").absolute()
    if SERVER.is_file() and not folder.is_dir():
        with tarfile.open(SERVER) as archive:
            archive.extractall(work, filter="tar")
    if folder.is_dir():
        os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return shutil.which("tritonserver") is not None or Path(".triton/bin/python").exists()


def measure_server(
    count: int,
    calibration: Calibration,
    served: dict[str, Any],
    asked: Asked,
    results: Results,
    *,
    seconds: float,
) -> None:
    """A server with so many instances, asked by as many clients as cores are left for."""
    from deploy.server import running_server

    repository = asked.work / f"fusion-{count}"
    write_repository(repository, count, calibration)
    clients = 1 if asked.tiny else max(2, min(8, len(os.sched_getaffinity(0)) // 2))
    # The fusion needs no GPU, and none is to be taken for the server's pools.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with running_server(repository=repository, log=asked.work / "tritonserver.log", timeout_s=60) as server:
        size = square_side(calibration.image_size)
        works = {mode: functools.partial(ask_for, server.grpc_url, size, mode, seconds) for mode in MODES}
        for mode, summed in together(works, clients):
            served[f"{count} {mode}"] = summed
            results.put(served=served, clients=clients, server=server.origin)


def write_repository(repository: Path, instances: int, calibration: Calibration) -> None:
    """The committed fusion alone, with another number of instances and one release."""
    from tritonclient.grpc import model_config_pb2 as pb

    from export.serving.steps import distance_fusion_config, instance_groups, to_text

    source = Path("model_repository") / "distance_fusion"
    target = repository / source.name
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("__pycache__", "calibrations"), dirs_exist_ok=True
    )
    config = distance_fusion_config()
    if instances == 1:  # behind a bounded queue it would now and then wait for the batcher's half second
        config.dynamic_batching.ClearField("default_queue_policy")
    del config.instance_group[:]
    config.instance_group.extend(pb.ModelInstanceGroup(**group) for group in instance_groups(instances))
    (target / "config.pbtxt").write_text(to_text(config), encoding="utf-8")
    (target / "calibrations").mkdir(exist_ok=True)
    (target / "calibrations" / f"{RELEASE}.json").write_text(calibration.to_json(), encoding="utf-8")


def ask_for(url: str, size: int, mode: str, seconds: float, begin: float) -> float:
    """Images/s that one client gets answered, a few requests in flight at a time."""
    import tritonclient.grpc as grpcclient

    from model_repository.grpc_channel import connect

    arrays = {f"distance_{n}": array for n, array in enumerate(batch_distances(size, BATCH), start=1)}
    arrays["release_id"] = np.full((BATCH, 1), RELEASE, np.int64)
    types = {"float32": "FP32", "int64": "INT64"}
    inputs = []
    for name, array in arrays.items():
        inputs.append(grpcclient.InferInput(name, array.shape, types[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array)
    names = ["pred_score", "pred_label", *(["anomaly_map", "pred_mask"] if mode == "maps" else [])]
    asked = {
        "model_name": "distance_fusion",
        "inputs": inputs,
        "outputs": [grpcclient.InferRequestedOutput(name) for name in names],
        "parameters": {"score_only": mode == "scores"},
    }
    client, answers = connect(url), queue.SimpleQueue[Any]()

    def send() -> None:
        client.async_infer(callback=lambda result, error: answers.put(error or result), **asked)

    def answered() -> None:
        answer = answers.get(timeout=ANSWER_S)
        if isinstance(answer, Exception):
            raise answer
        answer.as_numpy("pred_score")
        send()

    try:
        for _ in range(IN_FLIGHT):
            send()
        answered()
        return BATCH * count_runs(answered, seconds=seconds, begin=begin)
    finally:
        client.close()

"""A fleet on a real cluster of Ray: a node that is killed loses nothing, and results equal a plain loop's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

from export.builds.up_to_date import build_category
from export.product import ProductPaths
from tests.conftest import CATEGORY, TINY_OPTIONS, leave_out_pictures
from tests.products import ROOT
from train.checkpoint.header import read_header
from train.data.sources import find_category
from train.data.sources.synthetic.dataset import render_category
from train.runs import evaluate_category, fit_category
from train.support.devices import Runtime

pytestmark = pytest.mark.slow
CATEGORIES = (CATEGORY,)  # with the images of `tiny_data`, whose graphs the exporter has written already
OPTIONS = (
    *("--preset", "edge", "--teacher", "test_resnet", "--student", "test_efficientnet", "--random-weights"),
    *("--image-size", "64", "--sharpening", "0", "--batch-size", "4", "--steps", "2"),
    *("--memory-per-task", "0.1"),
)
TIMEOUT_S = 500  # the machine may be busy


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """The images; of a short name, since Ray's sockets lie in it too."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    for name in CATEGORIES:
        render_category(
            folder / "products", category=name, image_size=64, n_train=16, n_test_good=4, n_per_defect=1
        )
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(work: Path) -> Iterator[subprocess.Popen[str]]:
    """Two machines that work, beside one that only holds the cluster together."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with (
        (work / "cluster.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.fleet_cluster", "press-1", "press-2"],
            cwd=ROOT,
            env={**os.environ, **quiet, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(work)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as running,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n", (work / "cluster.log").read_text()
        yield running  # it ends when its input does


def start(work: Path, *options: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "train", "fleet", "--data", work / "products", *OPTIONS, *options]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines_until(fleet: subprocess.Popen[str], text: str) -> list[str]:
    assert fleet.stderr is not None
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = fleet.stderr.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


def end(fleet: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = fleet.communicate(timeout=TIMEOUT_S)
    return fleet.returncode, output, errors


def rows(output: str) -> dict[str, list[str]]:
    """State, node, AUROC and seconds of each category in the table."""
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line[:1] == "|"
    ]
    return {name: values for name, *values in cells[2:]}


def plain_loop(work: Path, category: str) -> None:
    """What the single commands do, in this process, into the folder `loop`."""
    data = find_category(category, data=str(work / "products"), data_dir=work)
    runtime, run_dir = Runtime("cpu"), work / "loop" / "runs" / category
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            fit_category(data, preset="edge", overrides=TINY_OPTIONS, run_dir=run_dir, runtime=runtime)
            with pytest.MonkeyPatch.context() as patch:
                leave_out_pictures(patch)
                evaluate_category(data, run_dir=run_dir, runtime=runtime)
            build_category(ProductPaths(category, work / "loop" / "runs", work / "loop" / "build"))
    finally:
        torch.set_num_threads(threads)


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def assert_same(category: str, made: Path, loop: Path) -> None:
    checkpoints = [folder / "runs" / category / "checkpoint.safetensors" for folder in (made, loop)]
    ours, theirs = map(load_file, checkpoints)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.tobytes() == theirs[name].tobytes(), name
    assert read_header(checkpoints[0]).config == read_header(checkpoints[1]).config
    metrics = [json.loads((path.parent / "metrics.json").read_text()) for path in checkpoints]
    assert without_times(metrics[0]) == without_times(metrics[1])
    for name in ("teacher.onnx", "student.onnx", "calibration.json"):
        assert (made / "build" / category / name).read_bytes() == (
            loop / "build" / category / name
        ).read_bytes()


def test_a_node_killed_half_way_loses_nothing_and_results_equal_a_plain_loops(
    cluster: subprocess.Popen[str], work: Path, graphs_written_once: None
) -> None:
    at = ("--address", "auto", "--cpus-per-task", "1")
    fleet = start(work, *at, RAY_TMPDIR=str(work))
    lines = lines_until(fleet, f"{CATEGORY}: fitting on press-")
    killed = lines[-1].split()[-1]
    assert cluster.stdin is not None
    print(killed, file=cluster.stdin, flush=True)
    for category in CATEGORIES:
        plain_loop(work, category)
    status, output, errors = end(fleet)
    said = "".join(lines) + errors
    assert status == 0, said
    assert f"{CATEGORY}: its task on {killed} was lost; it begins again." in said
    assert f"Node {killed} is gone." in said
    assert [values[0] for values in rows(output).values()] == ["done"] * len(CATEGORIES)
    assert output.startswith("## Fleet")  # and nothing of Ray's
    assert killed not in output
    for category in CATEGORIES:
        assert_same(category, work, work / "loop")
    again, output, errors = end(start(work, *at, RAY_TMPDIR=str(work)))
    assert again == 0, errors
    assert {values[0] for values in rows(output).values()} == {"up to date"}
    assert not any(f"{CATEGORY}: {word}ing on" in errors for word in ("check", "fitt", "evaluat", "export"))
    left = [path.name for path in (*(work / "runs").iterdir(), *(work / "build").iterdir())]
    assert sorted(left) == [".fleet", *sorted(CATEGORIES * 2)]


def test_without_an_address_ctrl_c_stops_every_command_and_saves_its_state(work: Path) -> None:
    folders = ("--runs-dir", work / "stopped" / "runs", "--build-dir", work / "stopped" / "build")
    environment = {"TMPDIR": str(work), "HOME": str(work / "home")}
    fleet = start(work, *folders, "--categories", CATEGORY, "--steps", "100000", **environment)
    lines_until(fleet, f"{CATEGORY}: fitting on ")
    unfinished = work / "stopped" / "runs" / CATEGORY / "unfinished"
    until(lambda: (unfinished / "losses.csv").is_file())
    ours = psutil.Process(fleet.pid).children(recursive=True)
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [psutil.Process(fleet.pid), *ours]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    (kept,) = work.glob(f"astmfr-fl-{fleet.pid}-*")
    assert kept.stat().st_mode & 0o777 == 0o700  # Ray opens what it makes to every user
    ray = next(process for process in ours if process.name() == "gcs_server")
    assert ray.environ()["RAY_AUTH_MODE"] == "token"
    assert not any(ray.environ()["RAY_AUTH_TOKEN"] in part for own in ours for part in own.cmdline())
    assert not (work / "home" / ".ray").exists()
    fleet.send_signal(signal.SIGINT)
    status, _, errors = end(fleet)
    assert (status, "Traceback" in errors) == (1, False), errors
    assert "Stopped: 0 of 1 categories are made; the same command goes on with the others." in errors
    assert (unfinished / "resume.pt").is_file()
    assert sorted(path.name for path in (work / "stopped").rglob("*.lock")) == []
    assert psutil.wait_procs(ours, timeout=20)[1] == []
    assert list(work.glob("astmfr-fl-*")) == []


def until(true: Callable[[], bool]) -> None:
    given_up_s = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < given_up_s
        time.sleep(0.05)

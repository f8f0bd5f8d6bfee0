"""An archive through the real server with a real Ray on this machine: ended half-way, every image once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from client.__main__ import main
from client.archiving.machines.cluster import FOLDER_PREFIX, LOOPBACK
from client.predictions.jsonl import read_jsonl
from deploy.server import TritonServer
from tests.client.archiving.dying import KILLER
from tests.deploy.conftest import comes_true
from tests.products import ROOT, Product, unused_url

pytestmark = [pytest.mark.triton, pytest.mark.slow]
pytest_plugins = ["tests.serving"]
COPIES, SHARD = 12, 5
WITHIN_S = 90.0  # Ray starts in some seconds, on a machine that has nothing else to do
SLOW = ("ray::DashboardA", "ray::RuntimeEnv")


@pytest.fixture
def images(edge: Product, tmp_path: Path) -> Path:
    """Copies of the product's test images, one that is broken, and last one of which its worker dies."""
    folder = tmp_path / "drop"
    for copy in range(COPIES):
        for index, image in enumerate(edge.data.test):
            lot = folder / f"lot {index}"
            lot.mkdir(parents=True, exist_ok=True)
            os.link(image.path, lot / f"{copy:03}{image.path.suffix}")
    (folder / "lot 0" / "999.png").write_bytes(b"no image")
    os.link(edge.data.test[0].path, folder / KILLER)
    return folder


class Running:
    """The command in a process, and all that it has started."""

    def __init__(self, *arguments: object, module: str) -> None:
        command = [sys.executable, "-m", module, "archive", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started: list[psutil.Process] = []

    def has_parts(self, parts: Path, count: int) -> None:
        """Wait until so many shards are done; what works on the next ones is in `started` then."""
        assert comes_true(lambda: len(list(parts.glob("*.parquet"))) >= count, within_s=WITHIN_S)
        self.started = psutil.Process(self.process.pid).children(recursive=True)

    def left(self) -> list[psutil.Process]:
        """What still runs, but for two of Ray's that tell others of the end before they go, for a minute."""
        running = [each for each in self.started if each.is_running()]
        return [
            each
            for each in running
            if each.status() != psutil.STATUS_ZOMBIE and not each.name().startswith(SLOW)
        ]


@contextmanager
def archiving(*arguments: object, module: str = "client") -> Iterator[Running]:
    """The command; what it has started is ended at the end."""
    running = Running(*arguments, module=module)
    with running.process:
        try:
            yield running
        finally:
            running.process.kill()
            for each in running.started:
                with suppress(psutil.NoSuchProcess):
                    each.kill()


def test_what_ends_an_archive_loses_nothing_and_repeats_nothing(
    server: TritonServer, edge: Product, images: Path, tmp_path: Path
) -> None:
    results, jsonl = tmp_path / "results.parquet", tmp_path / "predictions.jsonl"
    asked = ["--category", edge.name, "--timeout-s", "60"]
    predicted = CliRunner().invoke(
        main, ["predict", str(images), *asked, "--url", server.grpc_url, "--jsonl", str(jsonl)]
    )
    urls = ["--url", unused_url(), "--url", server.grpc_url]
    options = [images, "--to", results, *asked, *urls, "--shard", SHARD]
    parts = results.with_name("results.parquet.parts")
    n_images = COPIES * len(edge.data.test) + 2
    interrupt(options, parts)
    assert not results.exists()
    before = kill(options, parts)
    assert 2 <= before < n_images // SHARD
    with archiving(*options, "--workers", 1, module="tests.client.archiving.dying") as running:
        out, said = running.process.communicate(timeout=WITHIN_S)
    assert running.process.returncode == predicted.exit_code == 2, said  # an image is broken
    lines = said.splitlines()
    assert f"{before * SHARD} of {n_images} images were judged before." in lines
    assert len(lines) == 6, said  # that, the server that is away, three images, and how many have no verdict
    assert out.splitlines()[1:] == [str(results)]
    compare(results, jsonl, n_images=n_images)
    assert not parts.exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}{running.process.pid}-*"))


def interrupt(options: list[object], parts: Path) -> None:
    """Stop an archive by a signal; it says how far it came."""
    with archiving(*options, "--workers", 1) as running:
        running.has_parts(parts, 1)
        running.process.send_signal(signal.SIGTERM)
        out, said = running.process.communicate(timeout=WITHIN_S)
        assert comes_true(lambda: not running.left(), within_s=WITHIN_S), running.left()
    assert running.process.returncode == 2
    assert "Error: Interrupted." in said
    assert "images are done, in " in said
    assert "WARNING" not in said
    assert "not judged." in out


def kill(options: list[object], parts: Path) -> int:
    """End an archive by force: all that it has started ends; says how many shards are done."""
    with archiving(*options) as running:
        running.has_parts(parts, len(list(parts.glob("*.parquet"))) + 1)
        addresses = [address for each in running.started for address in listens_at(each)]
        running.process.kill()
        running.process.wait()
        done = len(list(parts.glob("*.parquet")))
        assert comes_true(lambda: not running.left(), within_s=WITHIN_S), running.left()
    assert addresses
    assert {address.removeprefix("::ffff:") for address in addresses} == {LOOPBACK}
    return done


def compare(results: Path, jsonl: Path, *, n_images: int) -> None:
    """The rows are those of `predict`, each once; some have no verdict."""
    rows = {row["path"]: row for row in pq.read_table(results).to_pylist()}
    assert pq.read_metadata(results).num_rows == len(rows) == n_images
    without = {path: row for path, row in rows.items() if row["label"] == "not judged"}
    predictions = [each for each in read_jsonl(jsonl) if each.image not in without]
    assert len(predictions) + len(without) == n_images
    for prediction in predictions:
        row = rows[prediction.image]
        assert row["label"] == ("anomalous" if prediction.anomalous else "good")
        assert row["score"] == pytest.approx(prediction.score, abs=1e-5)
        assert (row["threshold"], row["release_id"]) == (prediction.threshold, prediction.release_id)
        assert (row["original_size"]["width"], row["original_size"]["height"]) == prediction.original_size
        assert len(row["defects"]) == len(prediction.defects or ())
    (broken,) = (row for path, row in without.items() if Path(path).name == "999.png")
    assert "999.png" in broken["error"]
    died = [path for path, row in without.items() if "died 3 times (out of memory?)" in row["error"]]
    assert len(without) == 1 + len(died) <= 1 + SHARD
    assert Path(died[-1]).name == KILLER
    assert {row["score"] for row in without.values()} == {None}


def listens_at(process: psutil.Process) -> list[str]:
    """The addresses that a process takes connections at."""
    try:
        return [each.laddr.ip for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []

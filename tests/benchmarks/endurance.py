"""Half an hour of mixed load: does the server grow, or slow? `make bench-all WHAT=endurance`."""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import tritonclient.grpc as grpcclient
from PIL import Image
from rich.console import Console
from tritonclient.utils import InferenceServerException

from client.benchmark.bars import Bar
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from export.manifest import read_manifest
from model_repository.image_size import square_side
from tests.asking import RECONNECT, one_image
from tests.benchmarks.releases import START_TIMEOUT_S, publish
from tests.benchmarks.results import FOLDER, run, write_results
from tests.products import ROOT, copy_backends

WARM_UP_S = 60
LEAST_THROUGHPUT = 0.95  # of the last minute, in parts of the first
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Use:
    """What the server and its steps' processes hold.

    Attributes:
        minute: since the load began.
        answers, errors: of that minute.
        memory_bytes, descriptors, shared_memory_bytes: at its end.
    """

    minute: int
    answers: int
    errors: int
    memory_bytes: int
    descriptors: int
    shared_memory_bytes: int


class Load:
    """Pixels one by one, batches, image files, and files that are none, from four clients."""

    def __init__(self, url: str, category: str, size: int) -> None:
        """Ask at `url`; images of `size` pixels a side."""
        self.answers = self.errors = 0
        self._stopping = threading.Event()
        self._url, self._category = url, category
        batch = np.full((4, size, size, 3), 100, np.uint8)
        images = grpcclient.InferInput("image", list(batch.shape), "UINT8").set_data_from_numpy(batch)
        self._requests = [
            (category, one_image(size), True),
            (category, images, True),
            (f"{category}_encoded", encoded(png(size)), True),
            (f"{category}_encoded", encoded(b"no image"), False),
        ]
        self._threads = [threading.Thread(target=self._ask, args=(turn,)) for turn in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, turn: int) -> None:
        with grpcclient.InferenceServerClient(self._url, channel_args=RECONNECT) as client:
            while not self._stopping.is_set():
                model, tensor, sound = self._requests[turn % len(self._requests)]
                turn += 1
                try:
                    client.infer(model, [tensor], client_timeout=DEADLINE_S)
                    well = sound
                except InferenceServerException as error:
                    well = not sound and "INVALID_ARGUMENT" in str(error.status())
                self.answers += well
                self.errors += not well


def encoded(data: bytes) -> grpcclient.InferInput:
    """A file's bytes as a request's input."""
    return grpcclient.InferInput("encoded_image", [1, 1], "BYTES").set_data_from_numpy(
        np.array([[data]], dtype=object)
    )


def png(size: int) -> bytes:
    """A picture of noise, twice as large as what is judged."""
    file = io.BytesIO()
    Image.effect_noise((2 * size, 2 * size), 60).convert("RGB").save(file, "PNG")
    return file.getvalue()


def look(supervisor: Supervisor, minute: int, answers: int, errors: int) -> Use:
    """What is held now."""
    server = psutil.Process(supervisor.server.pid)
    processes = [server, *server.children()]
    prefix = supervisor.server.turns.name.removesuffix("turns")
    return Use(
        minute,
        answers,
        errors,
        sum(process.memory_info().rss for process in processes),
        sum(process.num_fds() for process in [*processes, psutil.Process()]),
        sum(region.stat().st_size for region in Path("/dev/shm").glob(f"{prefix}*")),
    )


def measure(supervisor: Supervisor, load: Load, minutes: int, say: Callable[[str], object]) -> list[Use]:
    """One look a minute, after one minute that is not counted."""
    uses = []
    with load:
        time.sleep(WARM_UP_S)
        for minute in range(1, minutes + 1):
            answers, errors = load.answers, load.errors
            time.sleep(60)
            uses.append(look(supervisor, minute, load.answers - answers, load.errors - errors))
            use = uses[-1]
            say(
                f"minute {minute}: {use.answers:,} answers, {use.errors} errors, {use.memory_bytes >> 20} MiB, "
                f"{use.descriptors} descriptors, {use.shared_memory_bytes >> 20} MiB of shared memory"
            )
    return uses


def main() -> None:
    """Load a server, print a line a minute, and compare the last with the first."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    manifest = read_manifest(asked.build)
    with tempfile.TemporaryDirectory() as folder:
        repository = copy_backends(Path(folder) / "models")
        publish(asked.build, repository)
        with supervised_server(
            repository=repository,
            log=Path(folder) / "log",
            triton_env=ROOT / ".triton",
            timeout_s=START_TIMEOUT_S,
        ) as supervisor:
            load = Load(
                supervisor.server.grpc_url, manifest.category, square_side(manifest.config.image_size)
            )
            uses = measure(supervisor, load, asked.minutes, console.print)
    first, last = uses[0], uses[-1]
    bars = [
        Bar("throughput, last to first minute", last.answers / first.answers, LEAST_THROUGHPUT, False),
        Bar("memory, last to first minute", last.memory_bytes / first.memory_bytes, 1.05, True),
        Bar("file descriptors more", last.descriptors - first.descriptors, 4, True),
        Bar("shared memory more, bytes", last.shared_memory_bytes - first.shared_memory_bytes, 0, True),
        Bar("errors", sum(use.errors for use in uses), 0, True),
        Bar("deaths", supervisor.state.deaths, 0, True),
    ]
    for bar in bars:
        console.print(str(bar))
    write_results(asked.json, {"minutes": [asdict(use) for use in uses]}, bars)


def parse_arguments() -> argparse.Namespace:
    """What is served, and for how long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/pill"), help="what `export onnx` made")
    parser.add_argument("--minutes", type=int, default=30, help="of load")
    parser.add_argument("--json", type=Path, default=FOLDER / "endurance.json", help="gets the results")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)

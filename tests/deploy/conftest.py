"""Small model repositories, and one server that the tests of its answers share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.server import TritonServer, running_server

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [{{ name: "image" data_type: TYPE_UINT8 dims: [ -1 ] }}]
output [
  {{ name: "same" data_type: TYPE_UINT8 dims: [ -1 ] }},
  {{ name: "environment" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""

# Gives the image back, together with a few variables of its own environment.
MODEL = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

NAMES = ("ASTMFR_INTRA_OP_THREADS", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        {execute}
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "image")) for request in requests]

    def answer(self, image):
        environment = json.dumps({{name: os.environ.get(name) for name in NAMES}}).encode()
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("same", image.as_numpy()),
            pb_utils.Tensor("environment", np.full((len(image.as_numpy()), 1), environment, object)),
        ])
"""


def add_model(repository: Path, name: str, *, initialize: str = "pass", execute: str = "pass") -> Path:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name))
    (folder / "1" / "model.py").write_text(MODEL.format(initialize=initialize, execute=execute))
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model, `identity`."""
    return add_model(tmp_path / "models", "identity")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with the models `part_2` and `part_10`, told to compute with 3 threads."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("part_10", "part_2"):
        add_model(folder / "models", name)
    with running_server(
        repository=folder / "models", log=folder / "logs" / "server.log", threads=3
    ) as server:
        yield server


def comes_true(condition: Callable[[], bool], *, within_s: float = 2) -> bool:
    """Whether a condition holds before long: a process that was killed takes a moment to go."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes_of(group: int) -> list[str]:
    """Processes of a process group that have not ended (a zombie has)."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":
            alive.append(name)
    return alive


def shared_memory_of(log: Path) -> list[Path]:
    """What is left in /dev/shm of the servers that wrote a log."""
    prefixes = set(re.findall(r"shm-region-prefix-name=(\w+)", log.read_text(errors="replace")))
    assert prefixes
    return [region for prefix in prefixes for region in Path("/dev/shm").glob(f"{prefix}*")]

"""Model repositories for benchmarks, apart from the project's own, and copies of a build as other categories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import numpy_helper

from deploy.server import TritonServer, running_server
from export.releases.publish import publish_category
from export.serving.backbones import Platform
from export.serving.onnx_files import read_onnx_file
from tests.products import ROOT

MAX_BATCH_SIZE = 8  # the default of `export publish`
START_TIMEOUT_S = 600


def publish(build: Path, repository: Path) -> None:
    """Publish as `python -m export publish` does."""
    publish_category(
        build,
        repository=repository,
        platform=Platform(max_batch_size=MAX_BATCH_SIZE),
        read_graph=read_onnx_file,
    )


def weight_bytes(graph: Path) -> int:
    """Bytes of a graph's weights."""
    model = onnx.load(graph)
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


@contextmanager
def serving(repository: Path, *, log: Path, threads: int = 0) -> Iterator[TritonServer]:
    """The real server over a repository, started as `python -m deploy serve` does; `threads` as there."""
    with running_server(
        repository=repository,
        log=log,
        triton_env=ROOT / ".triton",
        timeout_s=START_TIMEOUT_S,
        threads=threads,
    ) as server:
        yield server

"""Two small products published into one repository and served there, once a test run.

A test module asks for these fixtures with `pytest_plugins = ["tests.serving"]`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from deploy.protection.protection import Protection
from deploy.server import TritonServer, running_server
from tests.once import made_once
from tests.products import (
    ROOT,
    TIMEOUT_S,
    Product,
    copy_backends,
    make_product,
    publish_product,
    publish_uncalibrated,
    train_and_build,
)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model repository with nothing in it but the committed backends; data, runs and builds lie beside."""
    work = tmp_path_factory.mktemp("served")
    target = work / "model_repository"
    copy_backends(target)
    yield target
    shutil.rmtree(work)  # hundreds of MB, which pytest would keep


@pytest.fixture(scope="session")
def edge(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Product:
    """The `edge` preset after a few steps, with its real weights."""

    def make(work: Path) -> None:
        train_and_build("plate", "edge", {"steps": 4, "batch_size": 4}, work, n_train=10, n_test_good=4)

    return publish_product("plate", made_once(tmp_path_factory, "edge", make), repository)


@pytest.fixture(scope="session")
def server(
    repository: Path, edge: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A server with the edge product and one whose calibration is missing."""
    publish_uncalibrated(edge)
    log = tmp_path_factory.mktemp("server") / "tritonserver.log"
    protection = Protection(client_shm=True)
    with running_server(
        repository=repository, log=log, triton_env=ROOT / ".triton", protection=protection
    ) as running:
        yield running


@pytest.fixture(scope="session")
def paper(repository: Path, server: TritonServer) -> Product:
    """The `paper` preset's networks with random weights, published while the server runs, and loaded.

    At 64 px: at 256 px, of which the networks themselves know nothing, making it takes twice as long.
    """
    overrides = {"steps": 1, "batch_size": 2, "weights": "random", "image_size": 64}
    product = make_product("gear", "paper", overrides, repository, n_train=3, n_test_good=2)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        for model in (product.name, f"{product.name}_encoded"):
            client.load_model(model, client_timeout=TIMEOUT_S)  # and with it the steps that it names
    return product

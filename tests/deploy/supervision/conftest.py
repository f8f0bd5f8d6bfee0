"""A supervised server with the tiny category, and clients that ask it all the time and note what they saw."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from deploy.supervision.events import events_path
from deploy.supervision.supervised import supervised_server
from deploy.supervision.supervisor import Supervisor
from tests.asking import Clients, asking
from tests.conftest import CATEGORY
from tests.products import ROOT, copy_backends
from tests.tiny_products import publish_tiny


@pytest.fixture(scope="module")
def published(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the tiny category."""
    repository = copy_backends(tmp_path_factory.mktemp("supervised") / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    return repository


@pytest.fixture(scope="module")
def supervisor(published: Path) -> Iterator[Supervisor]:
    """A server that the tests of a module break one after the other."""
    log = published.parent / "log"
    with supervised_server(
        repository=published, log=log, triton_env=ROOT / ".triton", health_port=0
    ) as running:
        yield running


def clients_of(supervisor: Supervisor, *, count: int = 4) -> AbstractContextManager[Clients]:
    """Clients that ask a server within the block."""
    return asking(supervisor.server.grpc_url, Clients(CATEGORY), count=count)


def readiness(supervisor: Supervisor) -> tuple[int, dict[str, Any]]:
    """Status and body of the supervisor's own endpoint."""
    assert supervisor.health_url is not None
    try:
        with urllib.request.urlopen(supervisor.health_url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def events_of(log: Path) -> list[dict[str, Any]]:
    """What the supervisor wrote beside a log."""
    return [json.loads(line) for line in events_path(log).read_text().splitlines()]

"""More requests than a latency budget allows: each is answered or refused, none waits for its deadline."""

from __future__ import annotations

import fcntl
import queue
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from client import JudgeClient
from deploy.server import TritonServer, running_server
from export.manifest import read_manifest
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from train.support.cores import usable_cores

pytestmark = pytest.mark.triton

FLOOD = 200
AT_WORK = 2  # that the teacher's two instances have begun with, one image each
FLOODS = 10
TRIES = 100
# ms an image: 40 ms in all to wait in the queues
SERVICE_MS = {"decoder": 2.0, "teacher": 4.0, "student": 3.0, "fusion": 1.0}
BUDGET_MS = 50


@pytest.fixture(scope="module")
def server(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    work = tmp_path_factory.mktemp("overload")
    repository = copy_backends(work / "models")
    publish_tiny(tiny_build / CATEGORY, repository, latency_budget_ms=BUDGET_MS, service_ms=SERVICE_MS)
    with running_server(repository=repository, log=work / "log", triton_env=ROOT / ".triton") as running:
        yield running


def flood(server: TritonServer, image: grpcclient.InferInput) -> tuple[Counter[str], Counter[str]]:
    """Send all at once while this test has the backbones' lock; how they end: `answered`, or the status of the error.

    First those that end while no backbone can compute, then those that a backbone had begun with.
    """
    ended: queue.Queue[InferenceServerException | None] = queue.Queue()

    def next_ends(requests: int) -> Counter[str]:
        errors = [ended.get(timeout=TIMEOUT_S) for _ in range(requests)]
        return Counter("answered" if error is None else str(error.status()) for error in errors)

    with server.turns.open("a") as turns, grpcclient.InferenceServerClient(server.grpc_url) as client:
        fcntl.flock(turns, fcntl.LOCK_EX)
        for _ in range(FLOOD):
            client.async_infer(
                CATEGORY, [image], callback=lambda result, error: ended.put(error), client_timeout=TIMEOUT_S
            )
        waiting = next_ends(FLOOD - AT_WORK)
        fcntl.flock(turns, fcntl.LOCK_UN)
        return waiting, next_ends(AT_WORK)


def one_image(shape: tuple[int, ...]) -> grpcclient.InferInput:
    return grpcclient.InferInput("image", [1, *shape], "UINT8").set_data_from_numpy(
        np.full((1, *shape), 128, np.uint8)
    )


def ask_until_answered(client: grpcclient.InferenceServerClient, image: grpcclient.InferInput) -> int:
    """The release that answers; on a busy machine a step's share of the time may be over now and then."""
    for _ in range(TRIES - 1):
        try:
            return release_of(client, image)
        except InferenceServerException as error:
            if str(error.status()) != "StatusCode.UNAVAILABLE":
                raise
    return release_of(client, image)


def release_of(client: grpcclient.InferenceServerClient, image: grpcclient.InferInput) -> int:
    answer = client.infer(CATEGORY, [image], client_timeout=TIMEOUT_S)
    return int(answer.as_numpy("release_id")[0, 0])


@pytest.mark.skipif(usable_cores() < 2, reason="one core has no lock to take turns with")
@pytest.mark.parametrize("turn", range(3))
def test_overload_is_refused_and_nothing_hangs(server: TritonServer, tiny_build: Path, turn: int) -> None:
    image = one_image((64, 64, 3))
    for _ in range(FLOODS):  # on a busy machine those at work may be too late for a later step
        waiting, at_work = flood(server, image)
        assert waiting == {"StatusCode.UNAVAILABLE": FLOOD - AT_WORK}
        assert at_work.total() == at_work["answered"] + at_work["StatusCode.UNAVAILABLE"], at_work
        if at_work["answered"]:
            break
    assert at_work["answered"]
    # And afterwards it answers as if nothing had been.
    expected = read_manifest(tiny_build / CATEGORY).release_id
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        assert [ask_until_answered(client, image) for _ in range(20)] == [expected] * 20


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_client_gets_every_answer_in_order_although_requests_are_refused(
    server: TritonServer, shared_memory: bool
) -> None:
    """Formerly the first refusal ended it. The server has 40 ms for what waits, and 200 wait at a time."""
    pictures = [Image.effect_noise((64, 64), sigma).convert("RGB") for sigma in (1, 30, 60, 90, 120)]
    with JudgeClient(
        server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S, shared_memory=shared_memory
    ) as judge:
        expected = [judge.score(picture).score for picture in pictures] * 80
        scores = [score.score for score in judge.score_many(pictures * 80, in_flight=FLOOD)]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == len(pictures)

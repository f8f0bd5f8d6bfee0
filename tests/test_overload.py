"""More requests than may wait: each is answered or refused, none waits for its deadline."""

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
from deploy.protection.protection import Protection
from deploy.server import TritonServer, running_server
from export.manifest import read_manifest
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from train.support.cores import usable_cores

pytestmark = pytest.mark.triton

FLOOD = 200
WAITING = 64  # requests that may wait for the teacher
AT_WORK = 2 * 4  # that its two instances may have begun with, a batch each


@pytest.fixture(scope="module")
def server(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    work = tmp_path_factory.mktemp("overload")
    repository = copy_backends(work / "models")
    publish_tiny(tiny_build / CATEGORY, repository)
    with running_server(
        repository=repository,
        log=work / "log",
        triton_env=ROOT / ".triton",
        protection=Protection(client_shm=True),
    ) as running:
        yield running


def flood(server: TritonServer, image: grpcclient.InferInput) -> tuple[Counter[str], Counter[str]]:
    """Send all at once while this test has the backbones' lock; how they end: `answered`, or the status of the error.

    First those that are refused while no backbone can compute, then those that a backbone has begun with or that wait.
    """
    ended: queue.Queue[InferenceServerException | None] = queue.Queue()

    def next_ends(requests: int) -> Counter[str]:
        errors = [ended.get(timeout=TIMEOUT_S) for _ in range(requests)]
        return Counter("answered" if error is None else str(error.status()) for error in errors)

    refused = FLOOD - WAITING - AT_WORK  # at least
    with server.turns.open("a") as turns, grpcclient.InferenceServerClient(server.grpc_url) as client:
        fcntl.flock(turns, fcntl.LOCK_EX)
        for _ in range(FLOOD):
            client.async_infer(
                CATEGORY, [image], callback=lambda result, error: ended.put(error), client_timeout=TIMEOUT_S
            )
        waiting = next_ends(refused)
        fcntl.flock(turns, fcntl.LOCK_UN)
        return waiting, next_ends(FLOOD - refused)


def one_image(shape: tuple[int, ...]) -> grpcclient.InferInput:
    return grpcclient.InferInput("image", [1, *shape], "UINT8").set_data_from_numpy(
        np.full((1, *shape), 128, np.uint8)
    )


def release_of(client: grpcclient.InferenceServerClient, image: grpcclient.InferInput) -> int:
    answer = client.infer(CATEGORY, [image], client_timeout=TIMEOUT_S)
    return int(answer.as_numpy("release_id")[0, 0])


@pytest.mark.skipif(usable_cores() < 2, reason="one core has no lock to take turns with")
@pytest.mark.parametrize("turn", range(3))
def test_overload_is_refused_and_nothing_hangs(server: TritonServer, tiny_build: Path, turn: int) -> None:
    image = one_image((64, 64, 3))
    refused, others = flood(server, image)
    assert set(refused) == {"StatusCode.UNAVAILABLE"}
    assert set(others) <= {"answered", "StatusCode.UNAVAILABLE"}
    assert WAITING <= others["answered"] <= WAITING + AT_WORK
    # And afterwards it answers as if nothing had been.
    expected = read_manifest(tiny_build / CATEGORY).release_id
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        assert [release_of(client, image) for _ in range(20)] == [expected] * 20


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_client_gets_every_answer_in_order_although_requests_are_refused(
    server: TritonServer, shared_memory: bool
) -> None:
    """Formerly the first refusal ended it. 64 may wait at a step, and 200 are in flight."""
    pictures = [Image.effect_noise((64, 64), sigma).convert("RGB") for sigma in (1, 30, 60, 90, 120)]
    with JudgeClient(
        server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S, shared_memory=shared_memory
    ) as judge:
        expected = [judge.score(picture).score for picture in pictures] * 80
        scores = [score.score for score in judge.score_many(pictures * 80, in_flight=FLOOD)]
    assert scores == pytest.approx(expected, rel=1e-6)  # in batches of another size
    assert len(set(expected)) == len(pictures)

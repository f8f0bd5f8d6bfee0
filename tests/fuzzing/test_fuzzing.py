"""Some seconds of fuzzing, the same inputs each time; and what fuzzing has found before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fuzzing.inputs import CORPUS, FusionRequest, right_checksums
from tests.fuzzing.rounds import fuzz
from tests.fuzzing.steps import FindingError, Steps, running_steps
from tests.model_repository.picture_bytes import encoded, photo

pytestmark = pytest.mark.fuzz


@pytest.fixture(scope="module")
def steps() -> Iterator[Steps]:
    with running_steps() as running:
        yield running


def test_what_was_found_before_stays_mended(steps: Steps) -> None:
    for path in sorted(CORPUS.glob("*.picture")):
        steps.decode(path.read_bytes())
    for path in sorted(CORPUS.glob("*.fusion")):
        steps.fuse(FusionRequest(**json.loads(path.read_bytes())))


def test_whatever_is_sent_is_judged_or_refused_cleanly(steps: Steps) -> None:
    assert fuzz(steps, seconds=12, seed=0) == []
    assert steps.asked > 100
    assert steps.judged > steps.asked / 50  # not all of them are refused at the door


def test_a_process_that_dies_or_hangs_is_a_finding(steps: Steps) -> None:
    steps.worker.kill()
    steps.worker.wait()
    with pytest.raises(FindingError, match="the process died"):
        steps.decode(encoded(photo(), "PNG"))
    steps.decode(encoded(photo(), "PNG"))  # by another one


def test_checksums_are_made_right() -> None:
    whole = encoded(photo(), "PNG")
    assert right_checksums(whole) == whole
    wider = whole[:19] + b"\xff" + whole[20:]
    assert right_checksums(wider)[:29] == wider[:29]
    assert right_checksums(wider)[29:33] != wider[29:33]

"""Waits between tries: exponential, at random, and never beyond the budget."""

from __future__ import annotations

import pytest
from tritonclient.utils import InferenceServerException

from client.core.errors import DeadlineExceeded, Overloaded
from client.core.faults import Peer
from client.core.retries import FIRST_REFUSED_S, FIRST_UNREACHABLE_S, LONGEST_WAIT_S, Tries
from client.judging.calls import retrying

FULL = InferenceServerException("Exceeds maximum queue size", status="StatusCode.UNAVAILABLE")
LOST = InferenceServerException("Socket closed", status="StatusCode.UNAVAILABLE")
BAD = InferenceServerException("image 1 of 1 is empty", status="StatusCode.INVALID_ARGUMENT")
LATE = InferenceServerException("Deadline Exceeded", status="StatusCode.DEADLINE_EXCEEDED")
TRIES = Tries.begin(Peer("localhost:1"), timeout_s=100, now_s=1000)


@pytest.mark.parametrize(("error", "first_s"), [(FULL, FIRST_REFUSED_S), (LOST, FIRST_UNREACHABLE_S)])
def test_waits_double_up_to_a_bound(error: InferenceServerException, first_s: float) -> None:
    tries, waits = TRIES, []
    for _ in range(12):
        assert tries.after(error, now_s=1000, chance=0)[1] == 0  # full jitter
        tries, wait_s = tries.after(error, now_s=1000, chance=1)
        waits.append(wait_s)
    assert waits[:3] == [first_s, 2 * first_s, 4 * first_s]
    assert waits[-1] == LONGEST_WAIT_S
    assert TRIES.count == 0  # a value, which no try changes


def test_what_cannot_help_is_raised_at_once() -> None:
    for error in (BAD, LATE):
        with pytest.raises(InferenceServerException) as caught:
            TRIES.after(error, now_s=1000, chance=0)
        assert caught.value is error


def test_the_budget_ends_it() -> None:
    with pytest.raises(InferenceServerException) as caught:
        retrying(lambda: fail(LOST), url="localhost:1", timeout_s=0.05)
    assert caught.value is LOST
    with pytest.raises(Overloaded, match=r"refused the request \d+ times within 0\.05 s"):
        retrying(lambda: fail(FULL), url="localhost:1", timeout_s=0.05)
    assert TRIES.left_s(1099.5) == 0.5
    assert TRIES.extended(2).left_s(1101.5) == 0.5
    with pytest.raises(DeadlineExceeded, match=r"No answer from localhost:1 within 100 s"):
        TRIES.left_s(1100)


def test_a_last_try_that_is_late_is_told_as_the_overload_before() -> None:
    tries = TRIES
    for _ in range(2):
        tries, _ = tries.after(FULL, now_s=1000, chance=0)
    with pytest.raises(Overloaded, match="refused the request 2 times within 100 s"):
        tries.after(LATE, now_s=1000, chance=0)


def fail(error: InferenceServerException) -> None:
    raise error

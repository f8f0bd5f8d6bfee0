"""Waits between tries: exponential, at random, and never beyond the budget."""

from __future__ import annotations

import pytest
from tritonclient.utils import InferenceServerException

from client.judging import retries
from client.judging.errors import DeadlineExceeded, Overloaded
from client.judging.retries import FIRST_REFUSED_S, FIRST_UNREACHABLE_S, LONGEST_WAIT_S, Retries, retrying

FULL = InferenceServerException("Exceeds maximum queue size", status="StatusCode.UNAVAILABLE")
LOST = InferenceServerException("Socket closed", status="StatusCode.UNAVAILABLE")
BAD = InferenceServerException("image 1 of 1 is empty", status="StatusCode.INVALID_ARGUMENT")
LATE = InferenceServerException("Deadline Exceeded", status="StatusCode.DEADLINE_EXCEEDED")


@pytest.mark.parametrize(("error", "first_s"), [(FULL, FIRST_REFUSED_S), (LOST, FIRST_UNREACHABLE_S)])
def test_waits_double_up_to_a_bound(
    error: InferenceServerException, first_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[tuple[float, float]] = []
    monkeypatch.setattr("random.uniform", lambda low, high: bounds.append((low, high)) or high)
    monkeypatch.setattr(retries.time, "sleep", lambda _: None)
    tries = Retries(url="localhost:1", timeout_s=100)
    for _ in range(12):
        tries.wait(error)
    assert bounds[:3] == [(0, first_s), (0, 2 * first_s), (0, 4 * first_s)]  # full jitter
    assert bounds[-1] == (0, LONGEST_WAIT_S)


def test_what_cannot_help_is_raised_at_once() -> None:
    for error in (BAD, LATE):
        with pytest.raises(InferenceServerException) as caught:
            Retries(url="localhost:1", timeout_s=100).wait(error)
        assert caught.value is error


def test_the_budget_ends_it() -> None:
    with pytest.raises(InferenceServerException) as caught:
        retrying(lambda: fail(LOST), url="localhost:1", timeout_s=0.05)
    assert caught.value is LOST
    with pytest.raises(Overloaded, match=r"refused the request \d+ times within 0\.05 s"):
        retrying(lambda: fail(FULL), url="localhost:1", timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"No answer from localhost:1 within 1e-09 s"):
        _ = Retries(url="localhost:1", timeout_s=1e-9).left_s


def test_a_last_try_that_is_late_is_told_as_the_overload_before() -> None:
    tries = Retries(url="localhost:1", timeout_s=100)
    for _ in range(2):
        tries.wait(FULL)
    with pytest.raises(Overloaded, match="refused the request 2 times within 100 s"):
        tries.wait(LATE)


def fail(error: InferenceServerException) -> None:
    raise error

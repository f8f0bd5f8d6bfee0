"""One budget of time for all tries of a request: exponential backoff with full jitter between them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tritonclient.utils import InferenceServerException

from client.judging.errors import DeadlineExceeded, Overloaded
from client.judging.faults import fault_of, late_error, overload_error

Result = TypeVar("Result")

# The longest wait before the second try; it doubles with each. A full queue has room again after an image; a server
# that is not there takes longer to come back.
FIRST_REFUSED_S = 0.01
FIRST_UNREACHABLE_S = 0.1
DOUBLINGS = 10
LONGEST_WAIT_S = 0.5  # a server that is there again is asked within that
LONGEST_SHARE = 0.1  # of the budget, for a single wait
LEAST_SHARE = 0.02  # of the budget; in less than that no try is answered


class Retries:
    """The tries of one request, and how much of its time is left."""

    def __init__(self, *, url: str, timeout_s: float) -> None:
        """Give all tries of a request `timeout_s` together, from now on; `url` is for messages."""
        self._url, self._timeout_s = url, timeout_s
        self._until_s = time.perf_counter() + timeout_s
        self._tries = 0
        self._refusal: InferenceServerException | None = None  # the last one of an overloaded server

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, more than 0.

        Raises:
            DeadlineExceeded: it has passed.
        """
        left_s = self._until_s - time.perf_counter()
        if left_s <= 0:
            raise late_error(url=self._url, timeout_s=self._timeout_s)
        return left_s

    def extend(self, seconds: float) -> None:
        """Give the request more time: it was spent on what has a deadline of its own."""
        self._until_s += seconds

    def wait(self, error: InferenceServerException) -> None:
        """Wait before the next try, a random time, so that clients that failed together do not come back together.

        Raises:
            Overloaded: the server has refused the request until its deadline.
            InferenceServerException: `error` itself, where another try does not help or comes too late.
        """
        fault = fault_of(error)
        if fault.kind is Overloaded:
            self._refusal = error
        if fault.kind is DeadlineExceeded and self._refusal is not None:
            raise self._overload(self._refusal)  # that of the last try, which says less
        if not fault.again:
            raise error
        first_s = FIRST_REFUSED_S if fault.kind is Overloaded else FIRST_UNREACHABLE_S
        longest_s = min(
            first_s * 2 ** min(self._tries, DOUBLINGS), LONGEST_WAIT_S, LONGEST_SHARE * self._timeout_s
        )
        self._tries += 1
        wait_s = random.uniform(0, longest_s)
        if time.perf_counter() + wait_s + LEAST_SHARE * self._timeout_s >= self._until_s:
            raise self._overload(error) if fault.kind is Overloaded else error
        time.sleep(wait_s)

    def _overload(self, refusal: InferenceServerException) -> Overloaded:
        return overload_error(
            str(refusal.message()), url=self._url, refusals=self._tries, timeout_s=self._timeout_s
        )


def retrying(call: Callable[[], Result], *, url: str, timeout_s: float) -> Result:
    """What a call gives that changes nothing or may be made twice; tried again within `timeout_s`.

    Raises:
        ServerError, InferenceServerException: see `Retries.wait`.
    """
    retries = Retries(url=url, timeout_s=timeout_s)
    while True:
        try:
            return call()
        except InferenceServerException as error:
            retries.wait(error)

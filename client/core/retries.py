"""One budget of time for all tries of a request: exponential backoff with full jitter between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tritonclient.utils import InferenceServerException

from client.core.errors import DeadlineExceeded, Overloaded
from client.core.faults import Peer, fault_of, late_error, overload_error

# The longest wait before the second try; it doubles with each. A full queue has room again after an image; a server
# that is not there takes longer to come back.
FIRST_REFUSED_S = 0.01
FIRST_UNREACHABLE_S = 0.1
DOUBLINGS = 10
LONGEST_WAIT_S = 0.5  # a server that is there again is asked within that
LONGEST_SHARE = 0.1  # of the budget, for a single wait
LEAST_SHARE = 0.02  # of the budget; in less than that no try is answered


@dataclass(frozen=True)
class Tries:
    """The tries of one request, and how long there may be others; times are those of one clock, in seconds.

    Attributes:
        peer: who is asked, for messages.
        timeout_s: that all tries have together.
        until_s: when that is over.
        count: tries after which a wait was given.
        refusal: the last error of an overloaded server.
    """

    peer: Peer
    timeout_s: float
    until_s: float
    count: int = 0
    refusal: InferenceServerException | None = None

    @classmethod
    def begin(cls, peer: Peer, *, timeout_s: float, now_s: float) -> Tries:
        """Give all tries of a request `timeout_s` together, from now on."""
        return cls(peer, timeout_s, now_s + timeout_s)

    def left_s(self, now_s: float) -> float:
        """Seconds until the deadline, more than 0.

        Raises:
            DeadlineExceeded: it has passed.
        """
        if self.until_s <= now_s:
            raise late_error(self.peer, timeout_s=self.timeout_s)
        return self.until_s - now_s

    def extended(self, seconds: float) -> Tries:
        """The same with more time: it was spent on what has a deadline of its own."""
        return replace(self, until_s=self.until_s + seconds)

    def after(self, error: InferenceServerException, *, now_s: float, chance: float) -> tuple[Tries, float]:
        """The tries after one that failed, and the seconds to wait before the next.

        Args:
            error: of the last try.
            now_s: of the clock.
            chance: 0 to 1, at random, so that clients that failed together do not come back together.

        Raises:
            Overloaded: the server has refused the request until its deadline.
            InferenceServerException: `error` itself, where another try does not help or comes too late.
        """
        fault = fault_of(error)
        refusal = error if fault.kind is Overloaded else self.refusal
        if fault.kind is DeadlineExceeded and refusal is not None:
            raise self._overload(refusal, self.count)  # that of the last try, which says less
        if not fault.again:
            raise error
        first_s = FIRST_REFUSED_S if fault.kind is Overloaded else FIRST_UNREACHABLE_S
        longest_s = min(
            first_s * 2 ** min(self.count, DOUBLINGS), LONGEST_WAIT_S, LONGEST_SHARE * self.timeout_s
        )
        count, wait_s = self.count + 1, chance * longest_s
        if now_s + wait_s + LEAST_SHARE * self.timeout_s >= self.until_s:
            raise self._overload(error, count) if fault.kind is Overloaded else error
        return replace(self, count=count, refusal=refusal), wait_s

    def _overload(self, refusal: InferenceServerException, count: int) -> Overloaded:
        return overload_error(str(refusal.message()), self.peer, refusals=count, timeout_s=self.timeout_s)

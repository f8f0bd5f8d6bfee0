"""When what has failed is tried again: a server at once and then ever later, a model three times and then rarely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
SERVED_S = 1.0  # a server that ends sooner after it was ready counts as a start that failed
TRIES = 3
SOON_S = (1.0, 2.0)  # after the first and the second failure
LATER_S = 60.0  # and doubled with each further one
LONGEST_S = 600.0


@dataclass
class Failure:
    """A model that did not load.

    Attributes:
        reason: what the server said.
        tries: how often it was tried in a row.
        next_s: when it is tried again; infinity: not before somebody loads it.
        told: whether somebody was told that it does not load.
    """

    reason: str
    tries: int
    next_s: float
    told: bool = True

    @property
    def left_out(self) -> bool:
        """Whether the server is started without it."""
        return self.tries >= TRIES


class LoadRetries:
    """What is known of the models that do not load; times are seconds of one clock."""

    def __init__(self) -> None:
        """All load."""
        self.failures: dict[str, Failure] = {}

    def failed(self, model: str, reason: str, *, now_s: float, told: bool = True) -> Failure:
        """A model could not be loaded once more; `told`: somebody is told so."""
        before = self.failures.get(model, Failure("", 0, 0.0, told=False))
        tries = before.tries + 1
        later_s = min(LONGEST_S, LATER_S * 2 ** min(max(0, tries - TRIES), 10))
        delay_s = SOON_S[tries - 1] if tries < TRIES else later_s
        self.failures[model] = Failure(reason, tries, now_s + delay_s, told=told or before.told)
        return self.failures[model]

    def killed_the_server(self, models: Iterable[str], reason: str, *, now_s: float) -> list[str]:
        """A server died while it loaded these; returns those that are left out from now on.

        Where it was one alone, it is not tried again: the others would go down with it each time. Of several only one
        need be guilty, and they are tried one by one once the server serves.
        """
        suspects = list(models)
        for model in suspects:
            failure = self.failed(model, reason, now_s=now_s, told=False)
            if failure.left_out:
                failure.next_s = float("inf") if len(suspects) == 1 else now_s
        alone = len(suspects) == 1
        left_out = [
            model
            for model in suspects
            if self.failures[model].tries == TRIES or (alone and self.failures[model].left_out)
        ]
        for model in left_out:
            self.failures[model].told = True
        return left_out

    def loaded(self, models: Iterable[str]) -> list[str]:
        """Models that answer; returns those of which somebody was told that they do not load."""
        back = {model: self.failures.pop(model) for model in models if model in self.failures}
        return [model for model, failure in back.items() if failure.told]

    def due(self, *, now_s: float) -> str | None:
        """The model to be tried now: one at a time."""
        waiting = [
            (failure.next_s, model) for model, failure in self.failures.items() if failure.next_s <= now_s
        ]
        return min(waiting)[1] if waiting else None

    def left_out(self) -> dict[str, str]:
        """Models that the server is started without, and why."""
        return {model: failure.reason for model, failure in self.failures.items() if failure.left_out}


class Restarts:
    """Counts starts that failed one after the other."""

    def __init__(self) -> None:
        """None has failed."""
        self.failed = 0

    def next_delay_s(self, *, served_s: float | None) -> float:
        """Seconds to wait before the next start: 0 after a server that served, then 0, 1, 2, 4 ... 60.

        There is no last start: what is missing, a port or a file, may come back.

        Args:
            served_s: seconds that the server was ready before it ended; None where it never was.
        """
        if served_s is not None and served_s >= SERVED_S:
            self.failed = 0
            return 0.0
        self.failed += 1
        if self.failed == 1:
            return 0.0
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self.failed - 2, 10)))

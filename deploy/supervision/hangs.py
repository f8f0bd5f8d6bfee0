"""Servers that answer all but inferences: nothing waits in their queues, no process of theirs is dead.

Cancelled calls do that to the embedded tritonserver. Where nobody's inference has ended for a while, one is sent. Two
in a row without any answer, while nobody else got one either, are a hang. What is not seen: inferences of one category
that hang while those of others end, and of one that is loaded without its ensemble for image files. One of two
processes of a step that hangs while nothing waits for it is met by a probe only by chance.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.repository import ENCODED, ensemble_steps
from deploy.supervision.stalls import Work

QUIET_S = 5.0
REST = 10  # times as long as the last probe took: an idle server computes for a tenth of the time
LONGEST_REST_S = 60.0
ANSWER_S = 5.0
SLOWER = 4  # times as long as a batch takes in all steps
UNKNOWN_S = 60.0  # nobody knows how long a batch takes, or a model is being loaded
TRIES = 2
DECODER = "image_decoder"
LATE_S = 1.0  # a probe that was given up itself is seen within this
CLOCK_S = 0.1  # the server notes a request a moment after its answer
HANGS = (
    f"tritonserver answers, and inferences do not end: nobody's has ended, nor did {TRIES} of the supervisor's own; it "
    "is killed."
)


@dataclass
class Probe:
    """An inference that was sent.

    Attributes:
        target: the model that was asked.
        sent_s: when, of the clock of the looks.
        answered_before: inferences that had been answered when it was sent.
        answered: whether it was; None as long as it may be.
        took_s: seconds until then.
    """

    target: str
    sent_s: float
    answered_before: int
    answered: bool | None = None
    took_s: float = 0.0


class Hangs:
    """Follows from look to look whether a server's inferences end.

    A look takes no time: the probe waits in a thread of its own, and there is one at most. Only what is loaded is asked
    for, and nothing is loaded by it.

    Attributes:
        probed_s: from when to when each category was last asked, seconds since 1970; for who looks at what is used.
    """

    def __init__(self, ask: Callable[[str, float], bool], repository: Path) -> None:
        """Nothing was seen yet.

        Args:
            ask: sends an inference to a model and waits so many seconds at most; whether there was any answer.
            repository: what is served.
        """
        self._ask = ask
        self._repository = repository
        self._answered = -1
        self._since_s = 0.0
        self._probe: Probe | None = None
        self._unanswered = 0
        self._turn = 0
        self._took_s = 0.0
        self._loading_s = -math.inf  # when a model was last seen being loaded
        self.probed_s: dict[str, tuple[float, float]] = {}

    def look(self, work: Mapping[str, Work], *, loading: bool, now_s: float) -> bool:
        """Whether the server hangs in inferences alone.

        Args:
            work: what each loaded model has done, and how long its batches take, in this server or one before it.
            loading: whether a model is being loaded, which may take all cores.
            now_s: the time, on a clock that only goes on.
        """
        answered = sum(
            done.answered
            for model, done in work.items()
            if model.endswith(ENCODED) or model + ENCODED in work
        )
        if answered != self._answered:
            self._answered, self._since_s, self._unanswered = answered, now_s, 0
        if loading:
            self._loading_s = now_s
        if self._probe is not None:
            return self._judge(self._probe, work, now_s=now_s)
        targets = sorted(model for model in work if model.endswith(ENCODED))
        rest_s = max(QUIET_S, min(REST * self._took_s, LONGEST_REST_S))
        if not targets or now_s - self._since_s < rest_s:
            return False
        target = targets[self._turn % len(targets)]
        self._send(target, UNKNOWN_S if loading else self._patience_s(target, work), now_s=now_s)
        return False

    def _patience_s(self, target: str, work: Mapping[str, Work]) -> float:
        """How long an answer may take while nothing is loaded."""
        steps = {step: work[step] for step in ensemble_steps(self._repository, target) if step in work}
        # The probe's picture is decoded in no time, also where clients send pixels and nothing was decoded before.
        known = all(done.batch_s for step, done in steps.items() if not step.startswith(DECODER))
        return patience_s(steps.values()) if known else UNKNOWN_S

    def _judge(self, probe: Probe, work: Mapping[str, Work], *, now_s: float) -> bool:
        if probe.answered is None:
            # One that was sent while a model was loaded has no longer than others once that has ended.
            since_s = max(probe.sent_s, self._loading_s)
            if now_s - since_s < self._patience_s(probe.target, work) + LATE_S:
                return False
        self._probe = None
        if probe.answered:
            self._since_s, self._unanswered, self._took_s = now_s, 0, probe.took_s
            self._turn += 1
        elif probe.answered_before == self._answered:
            self._unanswered += 1
        return self._unanswered >= TRIES

    def _send(self, target: str, within_s: float, *, now_s: float) -> None:
        probe = self._probe = Probe(target, now_s, self._answered)
        category, began_s = target.removesuffix(ENCODED), time.time() - CLOCK_S
        self.probed_s[category] = began_s, math.inf

        def ask() -> None:
            answered, sent_s = True, time.monotonic()  # where the fault is our own
            try:
                answered = self._ask(target, within_s)
            finally:
                self.probed_s[category] = began_s, time.time() + CLOCK_S
                probe.took_s = time.monotonic() - sent_s
                probe.answered = answered

        threading.Thread(target=ask, name="inference probe", daemon=True).start()


def patience_s(steps: Iterable[Work]) -> float:
    """Seconds that a probe is waited for: of each step, a batch may be before it.

    More may wait before it in an overloaded server. Then others are answered meanwhile.
    """
    return ANSWER_S + SLOWER * sum(step.batch_s for step in steps)

"""Models that have stopped working: requests wait for them, and for seconds none is done.

An overloaded model is slow, and yet does one batch after the other; nothing is sent to find this out.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy.errors import ServerError
from deploy.model_control import ModelControl

ANSWER_S = 5.0
WAITING = re.compile(
    r'^nv_inference_pending_request_count\{model="(.+?)",version="\d+"\} (\d+)', re.MULTILINE
)
STALLED_S = 6.0
SLOWER = 5  # times as long as its batches take on average
UNKNOWN_S = 60.0  # no batch of it was ever done: nobody knows how long one takes
LONGEST_S = 600.0  # however often it has stalled
CALM_S = 3600.0  # stalls longer ago are forgotten

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # as in `model_control`


@dataclass(frozen=True)
class Work:
    """What a model has done since it was loaded, and what waits.

    Attributes:
        waiting: requests that wait.
        batches: that it ran, failed requests added.
        batch_s: seconds that a batch takes on average, of the size that takes longest: single images, as of probes, do
            not make large batches seem late.
        answered: requests that it answered without an error.
    """

    waiting: int
    batches: int
    batch_s: float
    answered: int = 0


class Stalls:
    """Compares what models have done from look to look.

    How long a model's batches take, and how often it was found stalled, is kept when it is reloaded and when another
    server is started: the statistics of both begin anew.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._since: dict[str, tuple[int, float]] = {}
        self._batch_s: dict[str, float] = {}
        self._stalled: dict[str, tuple[int, float]] = {}

    def begin(self) -> None:
        """Another server runs, which has done nothing yet."""
        self._since = {}

    def look(self, work: Mapping[str, Work], *, now_s: float) -> list[str]:
        """The models at which requests have waited with nothing done for as long as `patience_s` says."""
        stalled = []
        for model, done in work.items():
            self._batch_s[model] = max(self._batch_s.get(model, 0.0), done.batch_s)
            batches, since_s = self._since.get(model, (-1, now_s))
            if done.waiting == 0 or done.batches != batches:
                self._since[model] = (done.batches, now_s)
            elif now_s - since_s >= self.patience_s(model, now_s=now_s):
                stalled.append(model)
                self._since[model] = (done.batches, now_s)
                self._stalled[model] = (self._times_stalled(model, now_s=now_s) + 1, now_s)
        return stalled

    def remembered(self, work: Mapping[str, Work]) -> dict[str, Work]:
        """The same, with how long batches took at most in this server and those before it; 0 where nobody knows."""
        return {
            model: replace(done, batch_s=max(done.batch_s, self._batch_s.get(model, 0.0)))
            for model, done in work.items()
        }

    def patience_s(self, model: str, *, now_s: float) -> float:
        """Seconds in which a batch has to be done: STALLED_S, or five usual batches; longer before the first one.

        Twice as long after each reload for a stall: a batch that is killed each time never says how long it takes.
        """
        batch_s = self._batch_s.get(model, 0.0)
        usual_s = max(STALLED_S, SLOWER * batch_s) if batch_s else UNKNOWN_S
        return max(usual_s, min(LONGEST_S, usual_s * 2.0 ** min(self._times_stalled(model, now_s=now_s), 10)))

    def _times_stalled(self, model: str, *, now_s: float) -> int:
        """How often, of late."""
        times, last_s = self._stalled.get(model, (0, now_s))
        return times if now_s - last_s < CALM_S else 0


def read_work(control: ModelControl, metrics_url: str) -> dict[str, Work]:
    """What each loaded model has done, and how much waits for it.

    Raises:
        ServerError: the server does not answer.
    """
    try:
        with _opener.open(metrics_url, timeout=ANSWER_S) as response:
            metrics = response.read().decode(errors="replace")
    except OSError as error:
        raise ServerError(f"the metrics at {metrics_url} do not answer ({error}).") from None
    waiting: dict[str, int] = {}
    for model, requests in WAITING.findall(metrics):
        waiting[model] = waiting.get(model, 0) + int(requests)
    versions: dict[str, list[dict[str, Any]]] = {}
    for entry in control.statistics():
        versions.setdefault(entry["name"], []).append(entry)
    return {model: work_of(entries, waiting.get(model, 0)) for model, entries in versions.items()}


def work_of(versions: Sequence[Mapping[str, Any]], waiting: int) -> Work:
    """What the versions of a model have done, as Triton's statistics say it."""
    batch_s = [
        size["compute_infer"]["ns"] / 1e9 / size["compute_infer"]["count"]
        for version in versions
        for size in version["batch_stats"]
        if size["compute_infer"]["count"]
    ]
    return Work(
        waiting,
        batches=sum(
            version["execution_count"] + version["inference_stats"]["fail"]["count"] for version in versions
        ),
        batch_s=max(batch_s, default=0.0),
        answered=sum(version["inference_stats"]["success"]["count"] for version in versions),
    )

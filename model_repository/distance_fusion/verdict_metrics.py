"""What was inspected, among the server's metrics: images, rejects, and how near the scores come to the threshold.

A verdict is only put down while its request is answered. A thread hands it on, since each step of a metric asks the
server's own process, 20 us a time. Metrics never fail a verdict.

    astmfr_inspected_total{category, release}   images
    astmfr_rejected_total{category, release}    those whose score exceeded the threshold
    astmfr_score{category, release}             histogram of the score over the release's own threshold
"""

from __future__ import annotations

import queue
import threading
from typing import Any, NamedTuple

# Of the score over the threshold, so that they mean the same for every category. Good parts lie below 1.
BUCKETS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0]
MOST_WAITING = 100_000  # requests; a server that takes none of them is given no more


class Judged(NamedTuple):
    """One image's part of the metrics."""

    category: str
    release_id: int
    rejected: bool
    score_over_threshold: float | None  # None where the threshold is 0


class VerdictMetrics:
    """The metrics of one instance of the fusion; the server adds up those of all."""

    def __init__(self, utils: Any) -> None:
        """Register with the server.

        Args:
            utils: `triton_python_backend_utils`.

        Raises:
            Exception: whatever the server says where it keeps no metrics.
        """
        family = utils.MetricFamily
        self._families = {
            name: family(name=f"astmfr_{name}", description=text, kind=kind)
            for name, text, kind in (
                ("inspected_total", "Images that were judged.", family.COUNTER),
                ("rejected_total", "Images that were judged anomalous.", family.COUNTER),
                ("score", "Score over the release's own threshold.", family.HISTOGRAM),
            )
        }
        self._metrics: dict[tuple[str, int], dict[str, Any]] = {}
        self._log = utils.Logger
        self._told = False
        self._waiting: queue.Queue[list[Judged] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._hand_on, name="verdict-metrics", daemon=True)
        self._thread.start()

    def note(self, judged: list[Judged]) -> None:
        """Put down a request's verdicts."""
        try:
            self._waiting.put_nowait(judged)
        except queue.Full:
            if not self._told:
                self._log.log_warn("Verdicts are missing in the metrics: the server takes them too slowly.")
            self._told = True

    def close(self) -> None:
        """Hand on what waits."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _hand_on(self) -> None:
        while (judged := self._waiting.get()) is not None:
            try:
                for image in judged:
                    self._count(image)
            except Exception as error:
                self._log.log_warn(f"No more metrics of verdicts ({type(error).__name__}: {error}).")
                self._told = True
                return

    def _count(self, image: Judged) -> None:
        metrics = self._of(image.category, image.release_id)
        metrics["inspected_total"].increment(1)
        if image.rejected:
            metrics["rejected_total"].increment(1)
        if image.score_over_threshold is not None:
            metrics["score"].observe(image.score_over_threshold)

    def _of(self, category: str, release_id: int) -> dict[str, Any]:
        """The metrics of one release; a series begins with its first image."""
        key = category, release_id
        if key not in self._metrics:
            labels = {"category": category, "release": str(release_id)}
            self._metrics[key] = {
                name: family.Metric(labels=labels, **({"buckets": BUCKETS} if name == "score" else {}))
                for name, family in self._families.items()
            }
        return self._metrics[key]

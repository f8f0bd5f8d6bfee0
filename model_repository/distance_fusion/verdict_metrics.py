"""What was inspected, among the server's metrics: images, rejects, and how near the scores come to the threshold.

A verdict is only put down while its request is answered. A thread hands on what came together, since each step of a
metric asks the server's own process, 20 us a time: counts in one step, scores one by one. It wakes by itself, as a
request that woke it would wait for it. Metrics never fail a verdict.

    astmfr_inspected_total{category, release}   images
    astmfr_rejected_total{category, release}    those whose score exceeded the threshold
    astmfr_score{category, release}             histogram of the score over the release's own threshold
    astmfr_calibration_score{category, release, quantile}
                                                the same of the good images that the release was calibrated with, as its
                                                record has them; older records do not say, and there is no such series

Neither warm-ups nor requests with the parameter `probe` come here: their images are no parts.

Nothing here judges: it is not part of a release's id.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any, NamedTuple

# Of the score over the threshold, so that they mean the same for every category. Good parts lie below 1.
BUCKETS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0]
MOST_WAITING = 100_000  # requests; a server that takes none of them is given no more
EVERY_S = 0.2  # what was judged is handed on
QUANTILES = {"least": "0", "low": "0.05", "median": "0.5", "high": "0.95", "most": "1"}  # by a record's names
RECORDS = Path(".releases", "records")  # in the repository; `export.releases.store` writes there


class Judged(NamedTuple):
    """One image's part of the metrics."""

    category: str
    release_id: int
    rejected: bool
    score_over_threshold: float | None  # None where the threshold is 0


class VerdictMetrics:
    """The metrics of one instance of the fusion; the server adds up those of all."""

    def __init__(self, utils: Any, repository: Path | None = None) -> None:
        """Register with the server.

        Args:
            utils: `triton_python_backend_utils`.
            repository: whose records say what the calibrations' images scored; None for the one this file lies in.

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
                ("calibration_score", "That of the calibration's good images.", family.GAUGE),
            )
        }
        self._repository = repository or own_repository()
        self._metrics: dict[tuple[str, int], dict[str, Any]] = {}
        self._log = utils.Logger
        self._told = False
        self._waiting: deque[list[Judged]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._hand_on, name="verdict-metrics", daemon=True)
        self._thread.start()

    def note(self, judged: list[Judged]) -> None:
        """Put down a request's verdicts."""
        if self._thread.is_alive() and len(self._waiting) < MOST_WAITING:
            self._waiting.append(judged)
        elif not self._told:
            self._told = True
            self._log.log_warn("Verdicts are missing in the metrics: the server takes them too slowly.")

    def close(self) -> None:
        """Hand on what waits."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _hand_on(self) -> None:
        last = False
        while not last:
            last = self._closing.wait(EVERY_S)
            try:
                self._count()
            except Exception as error:
                self._log.log_warn(f"No more metrics of verdicts ({type(error).__name__}: {error}).")
                self._told = True
                return

    def _count(self) -> None:
        """Count what has come since the last time."""
        inspected: Counter[tuple[str, int]] = Counter()
        rejected: Counter[tuple[str, int]] = Counter()
        for _ in range(len(self._waiting)):
            for image in self._waiting.popleft():
                key = image.category, image.release_id
                inspected[key] += 1
                rejected[key] += image.rejected
                if image.score_over_threshold is not None:
                    self._of(*key)["score"].observe(image.score_over_threshold)
        for key, n_images in inspected.items():
            self._of(*key)["inspected_total"].increment(n_images)
            if rejected[key]:
                self._of(*key)["rejected_total"].increment(rejected[key])

    def _of(self, category: str, release_id: int) -> dict[str, Any]:
        """The metrics of one release; a series begins with its first image."""
        key = category, release_id
        if key not in self._metrics:
            labels = {"category": category, "release": str(release_id)}
            inspected, rejected, score, calibration = self._families.values()
            self._metrics[key] = {
                "inspected_total": inspected.Metric(labels=labels),
                "rejected_total": rejected.Metric(labels=labels),
                "score": score.Metric(labels=labels, buckets=BUCKETS),
            }
            for quantile, value in self._calibration_scores(category, release_id).items():
                gauge = calibration.Metric(labels={**labels, "quantile": quantile})
                gauge.set(value)
                self._metrics[key][quantile] = gauge  # it goes from the server when it is let go
        return self._metrics[key]

    def _calibration_scores(self, category: str, release_id: int) -> dict[str, float]:
        """As `calibration_scores`; a record that cannot be read is told, and the verdicts are counted all the same."""
        try:
            return calibration_scores(self._repository / RECORDS / category, release_id)
        except Exception as error:  # whatever a damaged file holds
            self._log.log_warn(
                f"What good images of {category!r} usually score is not among the metrics: a record of it cannot be "
                f"used ({type(error).__name__}: {error}); `python -m deploy check` names it."
            )
            return {}


def own_repository() -> Path:
    """The repository that this file lies in: in a version of the fusion, or in the fusion's folder."""
    folder = Path(__file__).absolute().parent
    return folder.parents[1] if folder.name.isdecimal() else folder.parent


def calibration_scores(records: Path, release_id: int) -> dict[str, float]:
    """What the good images scored that a release was calibrated with, over its threshold, by quantile.

    Args:
        records: the folder of the category's records.
        release_id: as verdicts name it.

    Returns:
        The scores by `QUANTILES`; none where no record of this release says them, or where its threshold is 0 or less.

    Raises:
        Exception: whatever reading a damaged record comes to.
    """
    for path in sorted(records.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        # Most are of other releases; a record is 20 kB, and its probes' images make up most of that.
        record = json.loads(text) if str(release_id) in text else {}
        if record.get("release_id") != release_id:
            continue
        threshold = record["calibration"]["image_threshold"]
        usual = record["manifest"]["provenance"].get("usual_scores")
        if usual is None or threshold <= 0:
            continue
        scores = {quantile: usual["score"][name] / threshold for name, quantile in QUANTILES.items()}
        if not all(map(math.isfinite, scores.values())):
            raise ValueError(f"{path.name} holds scores that are not finite")
        return scores
    return {}

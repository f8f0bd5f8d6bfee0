"""How images are asked about, and how far a run came."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from client.judging.served import IN_FLIGHT
from client.predictions.prediction import Prediction


@dataclass(frozen=True)
class Asking:
    """How images are asked about.

    Attributes:
        encoded: send the files as they are, for the server to decode.
        score_only: ask for no maps; there are no overlays then.
        in_flight: requests that may be on their way at a time.
        batch: images a request.
        threshold: image threshold in place of the release's own.
        min_area: defects of fewer pixels of the original are not listed; the label does not depend on it.
    """

    encoded: bool = False
    score_only: bool = False
    in_flight: int = IN_FLIGHT
    batch: int = 1
    threshold: float | None = None
    min_area: int = 0


@dataclass
class Outcome:
    """How far a run came; filled while it goes on.

    Attributes:
        n_images: that were to be judged.
        predictions: the answers, in the order of the images.
        broken: one sentence for each image that cannot be read.
        vanished: folders that are gone, and how many images were in them that were not read yet.
        unanswered: one sentence for each image whose request failed while others were answered.
        no_pictures: why pictures are missing; None where none are.
        stopped: why the run ended before its last image; None where it did not.
        next_image: the first one without an answer, where the run stopped and it is known.
    """

    n_images: int
    predictions: list[Prediction] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    vanished: Counter[Path] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    no_pictures: str | None = None
    stopped: str | None = None
    next_image: Path | None = None

    @property
    def n_done(self) -> int:
        """Images that were judged, or will not be."""
        return len(self.predictions) + self.n_broken + len(self.unanswered)

    @property
    def n_broken(self) -> int:
        """Images that could not be read."""
        return len(self.broken) + self.vanished.total()

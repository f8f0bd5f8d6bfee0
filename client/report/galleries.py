"""Pictures on the page, under titles: the mistakes, and some of the right verdicts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from client.predictions.prediction import Prediction

PICTURES = 8  # of each kind


@dataclass(frozen=True)
class Gallery:
    """Some pictures under a title; `empty` is shown where there are none."""

    title: str
    pictures: list[Prediction]
    empty: str


def galleries(predictions: Sequence[Prediction], drawn: Collection[str] = ()) -> list[Gallery]:
    """The mistakes, and some of the right verdicts; images that nobody knows by their score.

    `drawn` are images of which there are small pictures, beside those with an overlay.
    """

    def gallery(title: str, entries: Sequence[Prediction]) -> Gallery:
        shown = [entry for entry in entries if entry.overlay or entry.image in drawn]
        return Gallery(title, shown[:PICTURES], "No pictures were drawn of them." if entries else "None.")

    ordered = sorted(predictions, key=lambda entry: entry.score)
    unknown = [entry for entry in ordered if entry.defect is None]
    if len(unknown) == len(ordered):
        return [gallery("Most anomalous", unknown[::-1]), gallery("Least anomalous", unknown)]
    defective = [entry for entry in ordered if entry.defect not in (None, "good")]
    good = [entry for entry in ordered if entry.defect == "good"]
    kinds = {
        "Defects caught": [entry for entry in defective[::-1] if entry.anomalous],
        "Good images passed": [entry for entry in good if not entry.anomalous],
        "Escapes: defective, judged good": [entry for entry in defective if not entry.anomalous],
        "False rejects: good, judged anomalous": [entry for entry in good[::-1] if entry.anomalous],
    }
    if unknown:
        kinds["Unknown, most anomalous first"] = unknown[::-1]
    return [gallery(f"{title} ({len(entries)})", entries) for title, entries in kinds.items()]

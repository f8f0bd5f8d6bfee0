"""The table of the page: one row an image, as JSON that the page's script sorts and filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from client.console import printable
from client.predictions.prediction import Prediction

DEFECTS = 20  # of an image that are listed; all of them are counted
GOOD, ANOMALOUS, NOT_JUDGED = range(3)


def rows_json(
    predictions: Sequence[Prediction],
    *,
    missed: Iterable[tuple[str, str]],
    thumbnails: Mapping[str, str],
    link: Callable[[str], str],
) -> Markup:
    """All rows as text that may stand in a `script` of the page.

    Args:
        predictions: the answers.
        missed: images that were not judged, and why.
        thumbnails: small pictures, by the image's path.
        link: where an overlay is, as seen from the page.
    """
    rows = [_row(entry, thumbnails, link) for entry in predictions]
    rows += [{"n": printable(image), "v": NOT_JUDGED, "m": printable(reason)} for image, reason in missed]
    text = json.dumps(rows, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _row(entry: Prediction, thumbnails: Mapping[str, str], link: Callable[[str], str]) -> dict[str, Any]:
    """One answer; what is not known is missing. A release's id is text, for JavaScript's numbers are too short."""
    row: dict[str, Any] = {
        "n": printable(entry.image),
        "v": ANOMALOUS if entry.anomalous else GOOD,
        "s": float(f"{entry.score:.6g}"),
        "t": float(f"{entry.threshold:.6g}"),
        "r": str(entry.release_id),
    }
    if entry.defect is not None:
        row["k"] = printable(entry.defect)
    if entry.original_size is not None:
        row["z"] = entry.original_size
    if entry.defects is not None:
        row["c"] = len(entry.defects)
        row["a"] = max((defect.area for defect in entry.defects), default=0)
        row["d"] = [
            (
                defect.left,
                defect.top,
                defect.width,
                defect.height,
                defect.area,
                float(f"{defect.peak:.4g}"),
            )
            for defect in entry.defects[:DEFECTS]
        ]
    if entry.image in thumbnails:
        row["p"] = thumbnails[entry.image]
    if entry.overlay:
        row["o"] = link(entry.overlay)
    return row

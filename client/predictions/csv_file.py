"""Answers as a table that any spreadsheet opens: one row an image, the images without a verdict among them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.predictions.growing_file import GrowingFile
from client.predictions.prediction import Prediction

NOT_JUDGED = "not judged"
# Of the largest defect, pixels of the original.
LARGEST = ("left", "top", "width", "height", "area", "peak", "mean", "centre_x", "centre_y")
AREA = LARGEST.index("area")  # the columns up to it hold whole numbers
COLUMNS = (
    "image", "category", "verdict", "score", "threshold", "release_id", "latency_ms", "defect", "synthetic", "overlay",
    "original_width", "original_height", "defects", *(f"largest_{name}" for name in LARGEST), "reason",
)  # fmt: skip


class CsvFile(GrowingFile):
    """A row an image: its verdict, how many defects it has, and the one of the largest area.

    An image that was not judged has the verdict `not judged`, a `reason`, and nothing else. Bytes of a file's name that
    are no UTF-8 are written as `\\udcff`.
    """

    def __init__(self, path: Path) -> None:
        """Make sure that rows can be written there, see `GrowingFile`."""
        heading = _line(COLUMNS)
        super().__init__(path, is_ours=lambda line: line == heading, heading=heading)

    def append(self, prediction: Prediction) -> None:
        """Write an answer and hand it to the system at once.

        Raises:
            StorageError: it cannot be written; the rows before it stay, each whole.
        """
        self._append(row_of(prediction))

    def miss(self, image: Path, reason: str) -> None:
        """Write that an image was not judged, and why; raises as `append`."""
        self._append({"image": str(image), "verdict": NOT_JUDGED, "reason": reason})

    def _append(self, row: Mapping[str, Any]) -> None:
        self.append_line(_line([row.get(column) for column in COLUMNS]))


def row_of(prediction: Prediction) -> dict[str, Any]:
    """An answer by column; columns without a value are missing."""
    row: dict[str, Any] = {
        "image": prediction.image,
        "category": prediction.category,
        "verdict": "anomalous" if prediction.anomalous else "good",
        "score": prediction.score,
        "threshold": prediction.threshold,
        "release_id": prediction.release_id,
        "latency_ms": prediction.latency_ms,
        "defect": prediction.defect,
        "synthetic": str(prediction.synthetic).lower(),
        "overlay": prediction.overlay,
    }
    if prediction.original_size is not None:
        row["original_width"], row["original_height"] = prediction.original_size
    if prediction.defects is not None:
        row["defects"] = len(prediction.defects)
    if prediction.defects:
        largest = max(prediction.defects, key=lambda defect: defect.area)
        row |= {f"largest_{name}": f"{getattr(largest, name):.6g}" for name in LARGEST[AREA + 1 :]}
        row |= {f"largest_{name}": getattr(largest, name) for name in LARGEST[: AREA + 1]}
    return row


def _line(values: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", errors="backslashreplace")

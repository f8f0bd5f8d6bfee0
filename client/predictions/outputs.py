"""The files that a run fills while it goes on: each answer is in all of them before the next one is waited for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from client.core.errors import RequestError
from client.files import StorageError
from client.predictions.csv_file import CsvFile
from client.predictions.growing_file import STANDARD_OUTPUT
from client.predictions.jsonl import AnswerFile
from client.predictions.prediction import Prediction


@dataclass(frozen=True)
class Closed:
    """What became of the files.

    Attributes:
        notes: sentences about the runs before.
        faults: what could not be written to the end.
    """

    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Outputs:
    """JSON lines and a table, where they are asked for; and what was not judged, for the page."""

    def __init__(self, *, jsonl: Path | None = None, csv: Path | None = None) -> None:
        """Make sure that the files can be written; nothing is created or changed yet.

        Raises:
            StorageError: they cannot, or hold something else.
            RequestError: both are one file.
        """
        if jsonl and csv and os.path.realpath(jsonl) == os.path.realpath(csv):
            raise RequestError(f"--jsonl and --csv are both {jsonl}; give two files.")
        self._jsonl = AnswerFile(jsonl) if jsonl else None
        self._csv = CsvFile(csv) if csv else None
        self.missed: list[tuple[str, str]] = []

    @property
    def paths(self) -> list[Path]:
        """Of the files that are filled."""
        return [file.path for file in (self._jsonl, self._csv) if file and file.path != STANDARD_OUTPUT]

    @property
    def to_standard_output(self) -> bool:
        """Whether answers go there, and nothing else should."""
        return any(file and file.path == STANDARD_OUTPUT for file in (self._jsonl, self._csv))

    def keep(self, prediction: Prediction) -> None:
        """Write an answer.

        Raises:
            StorageError: it cannot be written; the lines before it stay.
        """
        if self._jsonl:
            self._jsonl.append(prediction)
        if self._csv:
            self._csv.append(prediction)

    def miss(self, image: Path, reason: str) -> None:
        """Write that an image was not judged, and why; raises as `keep`."""
        self.missed.append((str(image), reason))
        if self._csv:
            self._csv.miss(image, reason)

    def close(self, *, complete: bool) -> Closed:
        """Flush the files to disk; those of the run before are removed when this run is complete."""
        closed = Closed()
        for file in (self._jsonl, self._csv):
            try:
                note = file.close(complete=complete) if file else None
            except StorageError as error:
                closed.faults.append(error.message)
            else:
                closed.notes.extend([note] if note else [])
        return closed

"""Answers as JSON lines: appended as they come, and read back."""

from __future__ import annotations

from pathlib import Path

from client.core.errors import ClientError
from client.predictions.growing_file import GrowingFile
from client.predictions.prediction import Prediction


class AnswerFile(GrowingFile):
    """Every answer as a JSON object in a line of its own, see `Prediction`."""

    def __init__(self, path: Path) -> None:
        """Make sure that answers can be written there, see `GrowingFile`."""
        super().__init__(path, is_ours=_is_prediction)

    def append(self, prediction: Prediction) -> None:
        """Write an answer and hand it to the system at once.

        Raises:
            StorageError: it cannot be written; the answers before it stay, each a whole line.
        """
        self.append_line(prediction.to_json().encode())


def _is_prediction(line: bytes) -> bool:
    try:
        Prediction.from_json(line)
    except (ValueError, TypeError):
        return False
    return True


def read_jsonl(path: Path) -> list[Prediction]:
    """Read predictions.

    Raises:
        ClientError: no such file, or a line of another form.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ClientError(
            f"{path} does not exist; write it with `python -m client predict --jsonl`."
        ) from None
    except OSError as error:
        raise ClientError(f"{path} holds no predictions ({error.strerror}); write it again.") from None
    predictions = []
    for number, line in enumerate(lines, start=1):
        try:
            predictions.append(Prediction.from_json(line))
        except (ValueError, TypeError) as error:
            raise ClientError(
                f"{path} holds no predictions (line {number}: {error}); write it again."
            ) from None
    return predictions

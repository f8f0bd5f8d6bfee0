"""A run's folder: the unfinished run, the finished one, and earlier ones that another took the place of.

A run is trained in `unfinished/`. When it is finished its files move up, and those of the run that lay there move to
`earlier/<time>/<category>/`: whatever happens meanwhile, the finished run is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from train.checkpoint.header import Header, read_header
from train.checkpoint.known_defects import FIGURES_FILE
from train.data.regions import REFERENCE_PICTURE
from train.errors import StorageError
from train.fitting.losses import EVENTS_FOLDER, LOSSES_FILE
from train.runs.record import RunRecord
from train.support.files import read_json, replacing_folder, storage_errors, write_json
from train.support.locks import exclusive

CHECKPOINT = "checkpoint.safetensors"
STATE = "resume.pt"  # `train.fitting.unfinished.RESUME_FILE`, which loads torch; of this run, not of others beside it
OF_A_TRAINING = (LOSSES_FILE, EVENTS_FOLDER, FIGURES_FILE, REFERENCE_PICTURE, CHECKPOINT)
# What belongs to a checkpoint: measures, and what a server said with it. The other files in the folder are of
# studies, which say themselves what they were made with.
OF_A_RUN = (
    "metrics.json", "report.html", "fleet.json", "predictions.jsonl", "overlays", "served.html", "bench", STATE,
    *OF_A_TRAINING,
)  # fmt: skip
RECORD = "run.json"
CALIBRATED = "calibrated"  # holds a checkpoint for a moment that takes the place of the one that lies here


class RunFolder:
    """Where the files of a category's runs lie."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self.unfinished = path / "unfinished"

    def lock(self, work: str) -> AbstractContextManager[None]:
        """Held while a run is `trained` or `evaluated`; both may go on at once. See `exclusive`."""
        return exclusive(self.path / f".{work}.lock", work=work)

    def finished(self) -> Header | None:
        """The header of the finished run's checkpoint; None where there is no such file.

        Raises:
            CheckpointError: there is one, and it cannot be read.
        """
        return read_header(self.checkpoint) if os.path.lexists(self.checkpoint) else None

    def begun(self) -> RunRecord | None:
        """What the run that was begun last is made of; None where it ended, or its record cannot be read."""
        try:
            return RunRecord.model_validate(read_json(self.unfinished / RECORD))
        except ValidationError:
            return None

    def begin(self, record: RunRecord) -> None:
        """Make `unfinished/` and write down what is begun there; states of other runs in it stay."""
        write_json(self.unfinished / RECORD, record.model_dump(mode="json"))

    def state_stamp(self) -> tuple[int, int] | None:
        """What changes with every save of the unfinished run's state: inode and time; None while none is saved."""
        try:
            status = (self.unfinished / STATE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def take_over(self) -> Path | None:
        """Move a run that was trained to its end up into the folder, in place of the one that lies there.

        The checkpoint moves last, so that a move that was interrupted is gone on with. States of other runs stay.

        Returns:
            Where the run before was put; None where there was none.
        """
        if not (self.unfinished / CHECKPOINT).is_file():
            return None
        with storage_errors(self.path):
            kept = self.set_aside()
            for name in OF_A_TRAINING:
                if (self.unfinished / name).exists():
                    (self.unfinished / name).rename(self.path / name)
            for name in (
                RECORD,
                STATE,
            ):  # of a run that was stopped while it ended: there is nothing to go on with
                (self.unfinished / name).unlink(missing_ok=True)
            if not any(self.unfinished.iterdir()):
                self.unfinished.rmdir()
        return kept

    def set_aside(self, names: Iterable[str] = OF_A_RUN) -> Path | None:
        """Move those files of the finished run that are there to `earlier/`; return their folder, None for no file."""
        paths = [self.path / name for name in names if (self.path / name).exists()]
        if not paths:
            return None
        with storage_errors(self.path):
            kept = self._new_earlier_folder()
            kept.mkdir()
            for path in paths:
                path.rename(kept / path.name)
        return kept

    def calibrate_anew(self, write: Callable[[Path], None]) -> Path:
        """Put another calibration of the finished run in its place; return where the one before is kept, whole.

        `write` writes a checkpoint, and known_defects.json where there are any, into the folder that it is given.
        Whatever happens meanwhile, a whole checkpoint lies here.
        """
        with replacing_folder(self.path / CALIBRATED) as folder:
            write(folder)
        calibrated = self.path / CALIBRATED
        with storage_errors(self.path):
            kept = self._new_earlier_folder()
            kept.mkdir()
            for name in OF_A_RUN:
                path = self.path / name
                if not path.exists():
                    continue
                if path.is_dir() and name in OF_A_TRAINING:
                    shutil.copytree(path, kept / name)
                elif name in OF_A_TRAINING:
                    _keep(path, kept / name)
                else:
                    path.rename(kept / name)
            if not (calibrated / FIGURES_FILE).is_file():
                (self.path / FIGURES_FILE).unlink(missing_ok=True)
            for name in (FIGURES_FILE, CHECKPOINT):  # the checkpoint last: it says which figures are its own
                if (calibrated / name).is_file():
                    (calibrated / name).replace(self.path / name)
            calibrated.rmdir()
        return kept

    def drop_what_cannot_be_resumed(self) -> None:
        """Remove `unfinished/` if it holds neither a saved state nor a checkpoint."""
        if not (any(self.unfinished.rglob(STATE)) or (self.unfinished / CHECKPOINT).is_file()):
            shutil.rmtree(self.unfinished, ignore_errors=True)

    def _new_earlier_folder(self) -> Path:
        """A path that is free, in a folder that serves as --runs-dir for commands on that run."""
        stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
        for number in range(1, 1000):
            runs_dir = self.path / "earlier" / (stamp if number == 1 else f"{stamp}-{number}")
            if not runs_dir.exists():
                runs_dir.mkdir(parents=True)
                return runs_dir / self.path.absolute().name
        raise StorageError(f"{self.path / 'earlier'} is full; remove what is not needed.")


def _keep(path: Path, copy: Path) -> None:
    """The same file under another name, which stays when `path` is replaced; a copy where the disk has no links."""
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copy2(path, copy)

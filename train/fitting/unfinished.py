"""An unfinished run: what it was made of, and why another run may not go on from its state."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from train.config import FitConfig
from train.data.category import CategoryData
from train.fitting.losses import EVENTS_FOLDER, LOSSES_FILE
from train.support.files import reading_errors, storage_errors

RESUME_FILE = "resume.pt"  # in a run's folder
# Of an unfinished run; the state, which is looked for, last.
RUN_FILES = (LOSSES_FILE, EVENTS_FOLDER, RESUME_FILE)
# Fields of the configuration that say how trained networks are judged with: the weights do not depend on them.
AFTER_TRAINING = {
    "preset",
    "smoothing_sigma",
    "pool_size",
    "score_share",
    "stage_weighting",
    "foreground",
    "regions",
    "false_reject_rate",
    "pixel_false_positive_rate",
}
# torch tells a damaged file in these types.
DAMAGE = (EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError)


class RunInputs(BaseModel):
    """All that a run's weights follow from.

    Attributes:
        config: all choices of the run.
        data_fingerprint: of the good images, see `CategoryData.fingerprint`.
        n_images: how many good images there are, those included that are held out or cannot be read.
        n_train: how many of them are trained on; None while that is not known.
        surroundings: device, libraries, the shape of pictures and sources of the weights, by name; empty while they are
            not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: FitConfig
    data_fingerprint: str
    n_images: int
    n_train: int | None = None
    surroundings: Mapping[str, str] = {}

    @classmethod
    def of(cls, config: FitConfig, data: CategoryData) -> RunInputs:
        """What is known of a run on a category's images before it begins."""
        return cls(config=config, data_fingerprint=data.fingerprint(), n_images=len(data.train_good))


@dataclass(frozen=True)
class UnfinishedRun:
    """A saved state of training.

    Attributes:
        path: its file.
        step: steps done.
        inputs: what the run was made of; None where another version of this program saved it.
    """

    path: Path
    step: int
    inputs: RunInputs | None

    def differences(self, asked: RunInputs) -> tuple[str, ...]:
        """What keeps a run of `asked` from going on from this state, a phrase each; empty where it may.

        It may where it ends with the weights of a run that was never interrupted. So options that count after training
        alone may differ, and under a constant learning rate the number of steps: that of `cosine` follows from it.
        """
        if self.inputs is None:
            return ("another version of this program",)
        return (
            *_image_differences(self.inputs, asked),
            *_option_differences(self.inputs.config, asked.config),
            *self._step_difference(asked),
            *_surrounding_differences(self.inputs.surroundings, asked.surroundings),
        )

    def _step_difference(self, asked: RunInputs) -> tuple[str, ...]:
        assert self.inputs is not None
        if asked.data_fingerprint != self.inputs.data_fingerprint:
            return ()  # said already, and an epoch has other steps
        n_train = self.inputs.n_train or self.inputs.n_images
        before, now = self.inputs.config.total_steps(n_train), asked.config.total_steps(n_train)
        if before == now or (asked.config.schedule == "constant" and self.step <= now):
            return ()
        why = " (the cosine schedule follows from them)" if asked.config.schedule == "cosine" else ""
        return (f"{before} steps, now {now}{why}",)

    @property
    def folder_beside(self) -> Path:
        """Where its files are put when another run takes their place."""
        described = json.dumps(None if self.inputs is None else self.inputs.model_dump(mode="json"))
        digest = hashlib.sha256(described.encode()).hexdigest()[:8]
        return self.path.parent / f"unfinished-step-{self.step}-{digest}"


def find_unfinished(path: Path) -> UnfinishedRun | None:
    """The run whose state a file holds; None where there is no file, or it is damaged.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    try:
        return unfinished_run(path, read_saved(path, mapped=True))
    except (FileNotFoundError, *DAMAGE):
        return None


def find_all_unfinished(path: Path) -> list[UnfinishedRun]:
    """The run in a resume file, and those that were put beside it.

    Raises:
        StorageError: see `find_unfinished`.
    """
    beside = sorted(path.parent.glob(f"unfinished-step-*/{path.name}"))
    return [run for run in map(find_unfinished, [path, *beside]) if run is not None]


def move_files(source: Path, target: Path) -> None:
    """Move the files of an unfinished run from one folder to another; what of them stands there is replaced.

    Raises:
        StorageError: a file cannot be moved.
    """
    with storage_errors(target):
        target.mkdir(exist_ok=True)
        for name in RUN_FILES:
            if (source / name).exists():
                if (target / name).is_dir():
                    shutil.rmtree(target / name)
                (source / name).replace(target / name)


def read_saved(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """The content of a resume file; `mapped`, its tensors are not read before they are used.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it cannot be read.
        EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError: it is damaged.
    """
    with reading_errors(path, remedy="make it readable, or move it away to start from the beginning"):
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(saved, dict) or not isinstance(saved["state"], dict):
        raise TypeError(f"{path} holds no state")
    return saved


def unfinished_run(path: Path, saved: Mapping[str, Any]) -> UnfinishedRun:
    """The run of a resume file's content.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    try:
        inputs = RunInputs.model_validate(saved["run"])
    except ValidationError:
        inputs = None
    return UnfinishedRun(path, int(saved["state"]["step"]), inputs)


def _image_differences(before: RunInputs, now: RunInputs) -> tuple[str, ...]:
    if before.data_fingerprint == now.data_fingerprint:
        return ()
    if before.n_images == now.n_images:
        return (f"other files among the {now.n_images} good images",)
    return (f"{before.n_images} good images, now {now.n_images}",)


def _option_differences(before: FitConfig, now: FitConfig) -> tuple[str, ...]:
    fields = [name for name in FitConfig.model_fields if name not in AFTER_TRAINING | {"epochs", "steps"}]
    return tuple(
        f"{name} {getattr(before, name)}, now {getattr(now, name)}"
        for name in fields
        if getattr(before, name) != getattr(now, name)
    )


def _surrounding_differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    if before:  # states of before there was a choice
        before = {"aspect": "stretch", **before}
    return tuple(
        f"{name} {before[name]}, now {now[name]}"
        for name in before
        if name in now and before[name] != now[name]
    )

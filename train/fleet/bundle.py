"""A category's run and build as bytes, for nodes that do not share the folders with the driver."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path

from train.fitting.losses import EVENTS_FOLDER, LOSSES_FILE
from train.fleet.code import RECORD
from train.runs.evaluation import OF_AN_EVALUATION
from train.runs.folder import CHECKPOINT, RunFolder
from train.support.files import replacing_folder, storage_errors

OF_A_RUN = (LOSSES_FILE, EVENTS_FOLDER, *OF_AN_EVALUATION, RECORD, CHECKPOINT)  # the checkpoint last


def pack(category: str, *, runs_dir: Path, build_dir: Path) -> bytes:
    """The files of a category's finished run and of its builds; earlier and unfinished runs stay where they are."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in OF_A_RUN:
            if (path := runs_dir / category / name).exists():
                archive.add(path, f"runs/{category}/{name}")
        if (build := build_dir / category).is_dir():
            archive.add(build, f"build/{category}")
    return file.getvalue()


def unpack(packed: bytes, folder: Path) -> tuple[Path, Path]:
    """Write the files below a folder; return where runs and builds lie there."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive, storage_errors(folder):
        archive.extractall(folder, filter="data")
        for path in (path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as written:
                os.fsync(written.fileno())
    return folder / "runs", folder / "build"


def put_in_place(
    packed: bytes, category: str, made: Collection[str], *, runs_dir: Path, build_dir: Path
) -> None:
    """Put what a node has made where it belongs; a run that it takes the place of is kept in `earlier/`.

    Args:
        packed: see `pack`.
        category: whose they are.
        made: which of `train.fleet.code.STAGES` were made there; the files of others stay as they are here.
        runs_dir: where runs are kept.
        build_dir: where builds are kept.

    Raises:
        RunError: another process is at work on the run.
        StorageError: the files cannot be written; each that stood there is whole.
    """
    run = RunFolder(runs_dir / category)
    names = OF_A_RUN if "fit" in made else (*OF_AN_EVALUATION, RECORD)
    with (
        run.lock("trained"),
        storage_errors(run.path),
        tempfile.TemporaryDirectory(dir=run.path, prefix=".arrived.") as folder,
    ):
        runs, builds = unpack(packed, Path(folder))
        if "fit" in made:
            run.set_aside()
        for name in names:
            if (arrived := runs / category / name).exists():
                arrived.rename(run.path / name)
        if "export" in made:
            with replacing_folder(build_dir / category) as build:
                shutil.copytree(builds / category, build, dirs_exist_ok=True)

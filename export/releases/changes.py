"""What publishing changes in a repository: all of it is written first, then put in place by renames, or nothing is.

The files wait in a hidden folder inside the repository, so that a repository on a mount of its own can be renamed into.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from export.errors import PublishError
from export.releases.store import PROBE_WEIGHTS_ID, Store
from train.support.progress import console

STAGING = ".publish-"  # begins the folder's name; Triton and `deploy` take no notice of hidden folders


@dataclass(frozen=True)
class Changes:
    """New folders and files of a repository, and where each is to go.

    Attributes:
        staging: the folder in which they wait.
        moves: each with its target, in the order in which they are put in place.
        replaced: copies of the files that they replace, by target.
        removed: files and folders that go, each with where it goes to, after all else is in place.
    """

    staging: Path
    moves: list[tuple[Path, Path]] = field(default_factory=list)
    replaced: dict[Path, Path] = field(default_factory=dict)
    removed: list[tuple[Path, Path]] = field(default_factory=list)

    def folder(self, target: Path) -> Path:
        """An empty folder to fill; it becomes `target`, which must not exist."""
        folder = self._place(target)
        folder.mkdir()
        return folder

    def write(self, target: Path, content: bytes) -> bool:
        """Write a file that becomes `target`; False where `target` holds this content already.

        What was to become `target` before is not, then.
        """
        if target in (targets := [there for _, there in self.moves]):
            self.moves[targets.index(target)][0].write_bytes(content)
            return True
        if target.is_file():
            if target.read_bytes() == content:
                return False
            self.replaced[target] = Path(
                shutil.copyfile(target, self.staging / f"replaced-{len(self.replaced)}")
            )
        self._place(target).write_bytes(content)
        return True

    def remove(self, target: Path) -> None:
        """Let a file or folder go, after those that were named before."""
        self.removed.append((target, self.staging / f"removed-{len(self.removed)}"))

    def put_in_place(self) -> None:
        """Rename everything to its target; when that fails, all that was renamed goes back.

        Raises:
            OSError: what failed; the repository is as it was.
        """
        _flush(self.staging)
        folders = set()
        with ExitStack() as undo:
            for staged, target in self.moves:
                for parent in reversed([path for path in target.parents if not path.exists()]):
                    parent.mkdir()
                    undo.callback(parent.rmdir)
                staged.rename(target)
                if target in self.replaced:
                    undo.callback(self.replaced[target].rename, target)
                else:
                    undo.callback(target.rename, staged)
                folders |= {target.parent, target.parent.parent}
            for target, staged in self.removed:
                target.rename(staged)
                undo.callback(staged.rename, target)
                folders.add(target.parent)
            for folder in folders:
                _flush_one(folder)
            undo.pop_all()

    def _place(self, target: Path) -> Path:
        staged = self.staging / str(len(self.moves))
        self.moves.append((staged, target))
        return staged


@contextmanager
def changing(root: Path) -> Iterator[Changes]:
    """Changes to fill, which are put in place at the end; when the block raises, the repository stays as it was.

    Whoever changes a repository holds its lock (`export.releases.lock`): what an earlier one left behind is removed.

    Raises:
        PublishError: the repository cannot be written.
    """
    try:
        _sweep(root)
        staging = Path(tempfile.mkdtemp(dir=root, prefix=STAGING))
        try:
            changes = Changes(staging)
            yield changes
            changes.put_in_place()
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise unwritable(root, error) from None


def leftovers(root: Path) -> list[Path]:
    """What a command that was killed left behind; or what one that is at work has there."""
    probed = Store(root).calibration_path(PROBE_WEIGHTS_ID)
    return [*sorted(root.glob(f"{STAGING}*")), *([probed] if os.path.lexists(probed) else [])]


def _sweep(root: Path) -> None:
    """Remove leftovers; one that cannot be is named, and is in nobody's way."""
    for path in leftovers(root):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            if error.errno in (errno.EROFS, errno.ENOSPC):
                raise  # the repository cannot be written at all
            console.print(
                f"Warning: {path} was left by a command that was killed and cannot be removed "
                f"({error.strerror or error}); remove it.",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )


def unwritable(root: Path, error: OSError) -> PublishError:
    """That a repository cannot be written, and why."""
    return PublishError(
        f"{root} cannot be written ({error.strerror or error}) and stays as it was; make room, let this user write "
        "there, or choose another one with --repository."
    )


def _flush(folder: Path) -> None:
    """Bring everything in a folder to disk: a rename must not come there before what it names."""
    for path in folder.rglob("*"):
        _flush_one(path)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

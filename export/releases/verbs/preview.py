"""A release that is not live, alone in a repository of its own: to be looked at beside what serves."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.entries import append
from export.releases.audit.verification import require_untouched
from export.releases.bundles.contents import RECORD, SIGNATURE, members_of
from export.releases.changes import unwritable
from export.releases.files import WARM_UP
from export.releases.lock import publishing_alone
from export.releases.record import Record
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import require_whole
from export.releases.verbs.promote import find_record, promote


@dataclass(frozen=True)
class Candidate:
    """A release of a repository that may be looked at; the repository is only read.

    Attributes:
        root: the repository.
        record: the release.
    """

    root: Path
    record: Record

    @property
    def backends(self) -> frozenset[str]:
        """Triton's backends that run its models."""
        return frozenset(step.parsed_config().backend for step in self.record.steps.values())

    def lay_out(self, target: Path) -> int:
        """Make an empty folder a repository in which this release alone is live.

        Its files are hard links to those of the repository, which nobody writes to; copies where the disk has no such
        links, or the files are another user's.

        Returns:
            Bytes that were copied.

        Raises:
            PublishError: the folder cannot be written, a file is gone, or it is not what its record says.
        """
        store = Store(target)
        record_path = store.record_path(self.record.category, self.record.number)
        beside = {
            RECORD: record_path,
            RECORD + SIGNATURE: record_path.with_name(record_path.name + SIGNATURE),
            WARM_UP: target / self.record.steps["decoder"].model / WARM_UP,
        }
        n_bytes = 0
        try:
            for name, source in members_of(self.root, self.record).items():
                if isinstance(source, Path):  # as all of them are
                    n_bytes += _link(source, beside.get(name) or self._place(target, name))
        except OSError as error:
            raise unwritable(target, error) from None
        with publishing_alone(target):
            append(target, "import", self.record.category, self.record.number, f"a preview of {self.root}")
        promote(target, self.record.category, self.record.number)  # which compares each file with its hash
        return n_bytes

    def _place(self, target: Path, name: str) -> Path:
        """Where a file of a step belongs."""
        step_name, _, file = name.partition("/")
        step = self.record.steps[step_name]
        return Repository(target).folder(step.model, step.version) / file


def find_candidate(root: Path, category: str, number: int) -> Candidate:
    """A release that is not live.

    Raises:
        PublishError: there is no such release, it is live, its record was changed, or a file of it is not what it was.
        DataError: no category can have this name.
    """
    record = find_record(root, category, number)
    live = Store(root).live(category)
    if live is not None and live.number == number:
        raise PublishError(
            f"Release {number} of {category!r} is live in {root}; the server that serves it answers with it already."
        )
    require_untouched(root, record)
    require_whole(Repository(root), record)
    return Candidate(root, record)


def _link(source: Path, target: Path) -> int:
    """Put a file of another folder into this one; the bytes that were copied.

    Raises:
        OSError: it is gone, or cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve(strict=True)
    try:
        target.hardlink_to(real)
    except OSError:
        shutil.copyfile(real, target)
        return target.stat().st_size
    return 0

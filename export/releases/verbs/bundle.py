"""A release leaves a repository as one file, and comes into another one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.entries import NO_ACT, Act
from export.releases.audit.verification import require_untouched
from export.releases.bundles.adding import Added, add_release, require_place
from export.releases.bundles.archive import is_archive, write_archive
from export.releases.bundles.contents import RECORD, SIGNATURE, about, checked, members_of
from export.releases.lock import publishing_alone
from export.releases.record import Record
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.promote import find_record, require_shared

DEFAULT = Path("model_repository")  # that of `--repository`


def bundle_release(root: Path, category: str, number: int, output: Path) -> str:
    """Pack a release with all that serves it into one file: the same bytes each time.

    The repository is only read, so a read-only one will do.

    Args:
        root: the repository.
        category: the product.
        number: of the release.
        output: the file; a bundle that is there is replaced, which is said, and any other file is not.

    Returns:
        One line that says what was packed.

    Raises:
        PublishError: there is no such release, a file of it is not what it was, or `output` is another file.
        StorageError: the file cannot be written; what was there stays.
    """
    record = find_record(root, category, number)
    require_untouched(root, record)
    require_whole(Repository(root), record)
    there = output.exists()
    if there and not is_archive(output):
        raise PublishError(f"{output} is there and is no bundle; name another file with -o.")
    members = members_of(root, record)
    write_archive(output, members, about(record))
    with checked(output):  # as the machine that takes it will
        pass
    replaced = ", in place of the bundle there" if there else ""
    signed = "signed" if RECORD + SIGNATURE in members else "not signed"
    size_mib = output.stat().st_size / 2**20
    return (
        f"Packed: {_named(record)}, {signed}, into {output} ({size_mib:.1f} MiB){replaced}; add it "
        f"elsewhere with `python -m deploy import {shlex.quote(output.name)}`."
    )


def import_bundle(
    root: Path, path: Path, *, public_keys: Sequence[Path] = (), act: Act = NO_ACT
) -> tuple[Record, str]:
    """Add the release of a bundle to a repository; it does not become live.

    All of the bundle is checked before anything is written. Versions whose files are here already are shared.

    Args:
        root: the repository, or an empty folder that becomes one.
        path: the bundle.
        public_keys: files of public keys, by one of which the record must be signed; none of them asks for none.
        act: why, and who signs the record as it is here.

    Returns:
        The release as it is here, and one line that says what was added.

    Raises:
        PublishError: the bundle is none, was cut short or changed, is of another version of this project, or is not
            signed by one of the keys; another category has the name of one of its models, or is served over its teacher
            on another platform; or the repository cannot be written. It is as it was.
        DataError: the category is called like a model.
    """
    require_place(root)
    with checked(path, public_keys) as bundle:
        with publishing_alone(root):
            require_shared(Served.now(Repository(root)), bundle.record)
            added = add_release(root, bundle, act)
        said = _said(root, path, bundle.record, added, signed=bundle.signed)
    return added.record, f"{said}; {added.clock}" if added.clock else said


def live_command(root: Path, record: Record) -> str:
    """The command that makes a release live."""
    where = "" if root == DEFAULT else f" --repository {shlex.quote(str(root))}"
    return f"python -m deploy promote {record.number} --category {record.category}{where}"


def is_live(root: Path, record: Record) -> bool:
    """Whether a release is the live one of its category."""
    live = Store(root).live(record.category)
    return live is not None and live.number == record.number


def _said(root: Path, path: Path, packed: Record, added: Added, *, signed: bool) -> str:
    record = added.record
    if not added.new and not added.versions:
        return f"Up to date: {root} holds {_named(record)} of {path} already"
    if not added.new:
        return f"Restored: {_named(record)} from {path}: {', '.join(added.versions)} were missing in {root}"
    shared = len(record.steps) - len(added.versions)
    other = (
        f"; it was number {packed.number} where it was packed, and that follows no number here"
        if record.number != packed.number
        else ""
    )
    if signed and not added.same_bytes:
        other += (
            "; its signature is of the record as it was packed, which lies beside the one that is used here"
        )
    versions = ", ".join(added.versions) or "no version"
    return (
        f"Imported: {_named(record)} from {path}: added {versions}; {shared} steps were here already{other}"
    )


def _named(record: Record) -> str:
    return f"release {record.number} of {record.category} (release id {record.release_id})"

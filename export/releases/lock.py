"""One publisher at a time: what a release becomes depends on what the repository holds, until it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from export.errors import PublishError
from export.releases.changes import unwritable
from train.errors import RunError, StorageError
from train.support.locks import exclusive

LOCK_FILE = ".publisher"
WAIT_S = 60.0


@contextmanager
def publishing_alone(root: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold a repository's lock, which ends with the process that holds it, however it ends.

    Args:
        root: the repository.
        wait_s: how long another publisher is waited for.

    Raises:
        PublishError: another one was still publishing, which the sentence names; or the repository cannot be written.
    """
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(root / LOCK_FILE, work="published into", wait_s=wait_s))
        except RunError as error:
            raise PublishError(error.message) from None
        except StorageError as error:
            cause = error.__cause__
            raise (
                unwritable(root, cause) if isinstance(cause, OSError) else PublishError(error.message)
            ) from None
        yield

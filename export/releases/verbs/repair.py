"""What a killed command left behind is put right: all that Triton reads is again what the live records say."""

from __future__ import annotations

from pathlib import Path

from export.errors import PublishError
from export.releases.audit.verification import note_killed
from export.releases.changes import STAGING, changing
from export.releases.lock import publishing_alone
from export.releases.repository import Repository
from export.releases.switch import Served


def repair(root: Path) -> str | None:
    """Render a repository anew where a command that changes it was killed, and sweep what that left.

    A killed command has changed some files and not others. Every command that changes a repository repairs this too;
    here it is done for a server that starts first.

    Returns:
        One line that says what was done, or that it could not be; None where nothing was left.
    """
    if not any(root.glob(f"{STAGING}*")):
        return None
    try:
        with publishing_alone(root), changing(root) as changes:
            served = Served.now(Repository(root))
            changed = served.write(changes, served.step_configs())
            note_killed(changes, root)
    except PublishError as error:
        return f"A command that changed {root} was killed, and what it left could not be put right: {error.message}"
    mended = (
        "what Triton reads is again as the live releases say" if changed else "its leftovers were removed"
    )
    return f"A command that changed {root} was killed: {mended}."

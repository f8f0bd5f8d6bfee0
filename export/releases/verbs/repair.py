"""What a killed command left behind is put right: all that Triton reads is again what the live records say."""

from __future__ import annotations

from pathlib import Path

from export.errors import PublishError
from export.releases.audit.verification import note_killed
from export.releases.changes import changing, leftovers
from export.releases.lock import LOCK_FILE, WAIT_S, publishing_alone
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import Served


def repair(root: Path, *, wait_s: float = WAIT_S) -> list[str]:
    """Render a repository anew before a server reads it, so that it loads what is live and nothing else.

    A command that was killed has changed some files and not others, and left its lock file or its staging. Every
    command that changes a repository repairs this too. The release before, which stays loaded beside the live one
    while the server runs that switched them, is not loaded by the next server: `rollback` loads it.

    Args:
        root: the repository.
        wait_s: how long another command that changes it is waited for.

    Returns:
        What was done that was not to be expected, or that it could not be, a line each.
    """
    killed = bool(leftovers(root)) or (root / LOCK_FILE).exists()
    spares = {name: live.loaded for name, live in Store(root).all_live().items() if live.loaded is not None}
    if not killed and not spares:
        return []
    try:
        with publishing_alone(root, wait_s=wait_s), changing(root) as changes:
            served = Served.now(Repository(root)).without_spares()
            served.tell_damaged(but="")
            changed = served.write(changes, served.step_configs())
            if killed:
                note_killed(changes, root)
    except PublishError as error:
        said = []
        if killed:
            said.append(
                f"A command that changed {root} was killed, or is at work, and nothing was put right: {error.message}"
            )
        if spares:
            beside = ", ".join(f"release {number} of {name}" for name, number in spares.items())
            said.append(f"The server loads {beside} beside what is live, which takes memory: {error.message}")
        return said
    if not killed:
        return []
    mended = (
        "what Triton reads is again as the live releases say" if changed else "its leftovers were removed"
    )
    return [f"A command that changed {root} was killed: {mended}."]

"""What a killed command left behind is put right: all that Triton reads is again what the live records say."""

from __future__ import annotations

from pathlib import Path

from export.errors import PublishError
from export.releases.audit.entries import append
from export.releases.audit.log import AuditLog
from export.releases.audit.verification import Logged
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
        with publishing_alone(root):
            with changing(root) as changes:
                served = Served.now(Repository(root))
                changed = served.write(changes, served.step_configs())
            _complete_log(root, served)
    except PublishError as error:
        return f"A command that changed {root} was killed, and what it left could not be put right: {error.message}"
    mended = (
        "what Triton reads is again as the live releases say" if changed else "its leftovers were removed"
    )
    return f"A command that changed {root} was killed: {mended}."


def _complete_log(root: Path, served: Served) -> None:
    """What became live without its line of the audit log gets one."""
    logged = Logged.of(AuditLog.read(root).lines())
    for category, live in served.pointers.items():
        if logged.pointer(category) != live or (category, live.number) not in logged.records:
            append(root, "repair", category, live.number, "the command that made it live was killed")

"""What one check says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from deploy.errors import UserError

SEMICOLON = re.compile(r"; (?=(?:[^`]*`[^`]*`)*[^`]*$)")  # none within a command, which stands in backticks


class Verdict(StrEnum):
    """Only what is `missing` prevents serving."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """One thing that serving needs.

    Attributes:
        name: What was looked at.
        found: What is there, without a full stop.
        remedy: One sentence; empty where there is nothing to do.
        needed_for: What asks for it, where serving in general does not.
    """

    name: str
    found: str
    verdict: Verdict = Verdict.OK
    remedy: str = ""
    needed_for: str = ""


def missing(name: str, found: str, remedy: str, *, needed_for: str = "") -> Check:
    """Serving is not possible before this is mended."""
    return Check(name, found, Verdict.MISSING, remedy, needed_for)


def warning(name: str, found: str, remedy: str, *, needed_for: str = "") -> Check:
    """Serving is possible, but slow, short of room or not as it seems."""
    return Check(name, found, Verdict.WARNING, remedy, needed_for)


def refused(name: str, error: UserError) -> Check:
    """What `serve` would refuse with; our errors say what was found, then a semicolon and the remedy."""
    *found, remedy = SEMICOLON.split(error.message)
    return missing(name, "; ".join(found), sentence(remedy)) if found else missing(name, error.message, "")


def not_known(name: str, reason: str, remedy: str = "", *, needed_for: str = "") -> Check:
    """A check that could not be made."""
    return Check(name, f"not known: {reason}", Verdict.WARNING, remedy, needed_for)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def mebibytes(n_bytes: float) -> str:
    """`64 MiB`; `1.5 GiB` or `12 KiB` where it is that much or little."""
    if n_bytes >= 2**30:
        return f"{n_bytes / 2**30:,.1f} GiB"
    return f"{n_bytes / 2**20:.0f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.0f} KiB"

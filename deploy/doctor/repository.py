"""The model repository: is something published, can this user read it, and does the clock agree with its files."""

from __future__ import annotations

import time
from pathlib import Path

from deploy.doctor.check import Check, missing, refused, warning
from deploy.errors import RepositoryError
from deploy.repository import find_categories, is_served, readable, require_published, walk

CLOCK_TOLERANCE_S = 60  # of two machines' clocks over a shared folder


def check_repository(repository: Path) -> Check:
    """Whether a category is published, in files that this user can read."""
    name = "repository"
    try:
        is_there = repository.is_dir()
    except PermissionError:
        return missing(name, f"{repository} cannot be reached by this user", remedy_for_reading(repository))
    if is_there and not readable(repository):
        return missing(name, f"{repository} is not readable for this user", remedy_for_reading(repository))
    if hidden := [path for path in walk(repository) if is_served(path, repository) and not readable(path)]:
        found = f"{hidden[0]}{_and_more(len(hidden))} not readable for this user"
        return missing(name, found, remedy_for_reading(repository))
    try:
        require_published(repository)
        categories = list(find_categories(repository))
    except RepositoryError as error:
        return refused(name, error)
    listed = ", ".join(categories[:3]) + (f" and {len(categories) - 3} more" if len(categories) > 3 else "")
    return Check(name, f"{repository} publishes {listed or 'models without a category'}")


def check_clock(repository: Path) -> Check:
    """Whether a file of the repository is newer than now: a clock that was set back, or a PC whose battery is empty."""
    name, now = "clock", time.time()
    newest = max(walk(repository), key=modified_s, default=None)
    if newest is None:
        return Check(name, f"{shown(now)}; no file of {repository} to compare it with")
    ahead_s = modified_s(newest) - now
    if ahead_s <= CLOCK_TOLERANCE_S:
        return Check(name, f"{shown(now)}, and no file of {repository} is newer")
    return warning(
        name,
        f"{shown(now)}, and {newest} is of {shown(now + ahead_s)}, {duration(ahead_s)} later",
        "Set the clock, or new releases and log lines will seem older than those of before; if it is right, that of "
        "the PC that wrote the file is ahead.",
    )


def remedy_for_reading(repository: Path) -> str:
    """What lets another user than its owner serve a repository."""
    return f"Run `chmod -R a+rX {repository}` as its owner, or serve as the user who publishes."


def modified_s(path: Path) -> float:
    """When a file was changed last; 0 where it has just gone or is a link to nothing."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def shown(moment_s: float) -> str:
    """Local time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment_s))


def duration(seconds: float) -> str:
    """`3 days`, `5 hours` or `12 minutes`."""
    for unit, length_s in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds / 60, 1):.0f} minutes"


def _and_more(n_files: int) -> str:
    return " is" if n_files == 1 else f" and {n_files - 1} more are"

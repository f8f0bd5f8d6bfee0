"""Patterns of file names such as `lot/**/*.png`, where no shell has expanded them: quoted ones, and on Windows."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

ANY_DEPTH = "**"  # a folder and all folders below it
SPECIAL = frozenset("*?[")


def is_pattern(path: Path) -> bool:
    """Whether a path is meant as a pattern: nothing is called so, and it has `*`, `?` or `[`."""
    return has_special(str(path)) and not os.path.lexists(path)


def has_special(part: str) -> bool:
    """Whether a part of a path fits more than one name."""
    return not SPECIAL.isdisjoint(part)


def root_and_rest(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a pattern starts from, and the parts from the first on that is not the name of something."""
    parts = pattern.parts
    places = (Path(*parts[: index + 1]) for index in range(len(parts)))
    first = next(i for i, place in enumerate(places) if has_special(parts[i]) and not os.path.lexists(place))
    return Path(*parts[:first]), parts[first:]


def fits(name: str, part: str) -> bool:
    """Whether a name fits a part of a pattern; a hidden one fits only what begins with a dot too, as in a shell."""
    return (part.startswith(".") or not name.startswith(".")) and fnmatch.fnmatch(name, part)

"""Another threshold for the live release: `python -m deploy retune`, in a process of its own.

It signs with the key that `ASTMFR_SIGNING_KEY` names, where one is named.
"""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from client.core.errors import ClientError, RequestError
from client.page.deploy_commands import ask_deploy, list_releases

TIMEOUT_S = 120.0
LOOK_TIMEOUT_S = 30.0  # to find out what is live, after a retuning of which nothing was heard
LONGEST = 1000  # characters of a reason


@dataclass(frozen=True)
class Retuned:
    """A threshold that is live.

    Attributes:
        category: the product.
        threshold, release, release_id: those that are live now; the release by its number.
        threshold_before, release_before, release_id_before: those that were live before.
        said: what `deploy retune` said, a line each.
    """

    category: str
    threshold: float
    release: int
    release_id: int
    threshold_before: float
    release_before: int
    release_id_before: int
    said: tuple[str, ...]


def retune(
    category: str,
    threshold: float,
    *,
    of_release: int,
    reason: str,
    who: str,
    repository: Path,
    url: str | None,
    timeout_s: float = TIMEOUT_S,
) -> Retuned:
    """Give the live release of a category another threshold: a new release of the same weights, live at once.

    Args:
        category: the product.
        threshold: finite and at least 0.
        of_release: the id of the release for whose scores it was chosen; where another is live, nothing is changed.
        reason: why, up to 1000 characters; kept in the audit log and in the new record, and not empty.
        who: the person, who is named after the reason; the log itself names the user whom this process runs as.
        repository: the repository that is served.
        url: host:port of the server's gRPC endpoint; None for the server of this machine that serves the repository,
            and where none does, for its next start.
        timeout_s: seconds for all of it.

    Raises:
        RequestError: a threshold that cannot be, no reason, or one that is too long.
        ClientError: it was refused, in the words of `deploy retune`; `deploy` is not installed; or nothing was heard of
            it in time, when the sentence says what is live.
    """
    asked = _checked(category, threshold, reason, who)
    options = [f"--threshold={asked.threshold!r}", f"--of-release={of_release}", f"--reason={asked.reason}"]
    options += [f"--url={url}"] if url is not None else []
    try:
        answer = ask_deploy("retune", category, repository, *options, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        raise ClientError(_unheard(category, repository, timeout_s)) from None
    try:
        now, before = answer["live"], answer["before"]
        return Retuned(
            category=category,
            threshold=float(now["threshold"]),
            release=int(now["number"]),
            release_id=int(now["release_id"]),
            threshold_before=float(before["threshold"]),
            release_before=int(before["number"]),
            release_id_before=int(before["release_id"]),
            said=tuple(map(str, answer["said"])),
        )
    except (KeyError, TypeError, ValueError):
        raise ClientError(
            f"`python -m deploy retune` did not say what is live of {category!r}; look with `python -m deploy "
            "releases`, and install client and deploy of one version."
        ) from None


@dataclass(frozen=True)
class _Asked:
    threshold: float
    reason: str


def _checked(category: str, threshold: float, reason: str, who: str) -> _Asked:
    """What is asked for, with the person in the reason."""
    if not math.isfinite(threshold) or threshold < 0:
        raise RequestError(f"The threshold is {threshold!r}; expected a finite number of at least 0.")
    # What a process can be given on its command line: no line breaks, no NUL, no half characters.
    words, person = (_one_line(text) for text in (reason, who))
    if not words:
        raise RequestError("A new threshold asks for a reason; say why, it is kept in the audit log.")
    if len(words) > LONGEST:
        raise RequestError(f"The reason has {len(words)} characters; expected {LONGEST} at most.")
    if not category or "\0" in category:
        raise RequestError(f"The category is {category!r}; expected the name of a published product.")
    return _Asked(abs(float(threshold)), f"{words} ({person}, on the page)" if person else words)


def _one_line(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.encode(errors="replace").decode().split())


def _unheard(category: str, repository: Path, timeout_s: float) -> str:
    """What is known after a retuning that was ended: it comes about wholly or not at all, and one of both it did."""
    sentence = f"`python -m deploy retune` gave no answer within {timeout_s:g} seconds and was stopped"
    look = "`python -m deploy releases` says what is live"
    try:
        found = list_releases(category, repository, timeout_s=LOOK_TIMEOUT_S)
        live = next(entry for entry in found if entry["live"] == "live")
        return (
            f"{sentence}; live is release {live['number']} of {category}, threshold {live['threshold']:.6g}."
        )
    except (ClientError, subprocess.TimeoutExpired, KeyError, TypeError, ValueError, StopIteration):
        return f"{sentence}; {look}."

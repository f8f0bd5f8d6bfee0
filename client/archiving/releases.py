"""Which releases judge: all servers have to serve one, that of what was judged before, unless several are wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from client.archiving.tally import Tally
from client.archiving.work import Task
from client.core.errors import RequestError, Unreachable


def require_releases(
    task: Task, judged: Tally, *, mixed: bool, folder: Path, say: Callable[[str], None]
) -> None:
    """Make sure that servers answer, and that they serve one release, that of what was judged before.

    Args:
        task: names the servers and the category.
        judged: what was counted of the shards that are done.
        mixed: several releases will do.
        folder: that of those shards.
        say: takes a sentence about a server that is away while others answer.

    Raises:
        Unreachable: no server answers.
        ServerError: one of them does not have the category, or asks for a key.
        RequestError: a certificate cannot be used, or there are several releases and that is not wanted.
    """
    live: dict[str, int] = {}
    away: list[Unreachable] = []
    for endpoint in task.endpoints:
        try:
            with task.connect(endpoint) as judge:
                live[endpoint.url] = judge.release_id
        except Unreachable as error:
            away.append(error)
    if not live:
        raise away[0]
    for fault in away:
        say(f"{fault.message} The other servers are asked.")
    if mixed:
        return
    if len(set(live.values())) > 1:
        each = ", ".join(f"{release} at {url}" for url, release in live.items())
        raise RequestError(
            f"The servers serve several releases ({each}); serve one of them everywhere, or give --mixed-releases."
        )
    (release,) = set(live.values())
    if judged.releases and release not in judged.releases:
        before = " and ".join(map(str, judged.releases))
        raise RequestError(
            f"{judged.judged:,} images were judged by release {before}, and {release} is live by now; give "
            f"--mixed-releases to go on, or remove {folder} to judge all images anew."
        )

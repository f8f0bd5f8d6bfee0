"""How many requests of a kind are worked on at a time, so that slow ones do not keep the page from all others."""

from __future__ import annotations

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

SERVER = "server"  # waits for the server that judges, perhaps until its deadline
MAPS = "maps"  # the same, for a map that somebody looks at; he has no more of them than a few
PIXELS = "pixels"  # decodes or packs whole pictures in memory
UPLOAD = "upload"  # has a whole upload in memory
MOST = {SERVER: 4, MAPS: 4, PIXELS: 2, UPLOAD: 3}
_limiters: RunVar[dict[str, CapacityLimiter]] = RunVar("limiters")


def of(kind: str) -> CapacityLimiter:
    """The limiter of a kind, of the event loop that runs."""
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {}
        _limiters.set(limiters)
    if kind not in limiters:
        limiters[kind] = CapacityLimiter(MOST[kind])
    return limiters[kind]

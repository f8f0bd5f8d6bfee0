"""All that the supervisor knows, apart from any process: what a server is started with the next time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.repository import ENCODED
from deploy.supervision.retries import LoadRetries, Restarts

Index = Sequence[Mapping[str, str]]
BUSY = frozenset({"LOADING", "UNLOADING"})


@dataclass
class State:
    """Kept from one server to the next.

    Attributes:
        wanted: models that are to be loaded: those of the first start, those that somebody loaded since, without those
            that somebody unloaded.
        retries: models that do not load.
        restarts: starts that failed.
        deaths: servers that have ended by themselves.
    """

    wanted: set[str]
    retries: LoadRetries = field(default_factory=LoadRetries)
    restarts: Restarts = field(default_factory=Restarts)
    deaths: int = 0

    def to_start(self) -> list[str]:
        """The models that the next server loads."""
        return sorted(self.wanted - set(self.retries.left_out()))

    def follow(self, index: Index, published: Iterable[str]) -> None:
        """Take over what was loaded and unloaded by others, as the server's index says, and what is there no more.

        A repository without any model is away, not empty: nothing is taken over.
        """
        published = set(published)
        if not published:
            return
        for name, states in states_of(index).items():
            if "READY" in states:
                self.wanted.add(name)
            elif states and states <= {"unloaded"} and name not in self.retries.failures:
                self.wanted.discard(name)
        self.wanted.intersection_update(published)

    def serves(self, index: Index) -> bool:
        """Whether one of the wanted categories answers; where there are none, whether a wanted model does."""
        ready = {name for name, states in states_of(index).items() if "READY" in states}
        categories = {name for name in self.wanted if name + ENCODED in self.wanted}
        return not self.wanted or bool(ready & (categories or self.wanted))


def states_of(index: Index) -> dict[str, set[str]]:
    """States of the versions of each model; "unloaded" for those that were unloaded and did not fail."""
    found: dict[str, set[str]] = {}
    for entry in index:
        states = found.setdefault(entry["name"], set())
        if entry.get("reason") == "unloaded":
            states.add("unloaded")
        elif "state" in entry:
            states.add(entry["state"])
    return found


def not_answering(index: Index, wanted: Iterable[str]) -> list[str]:
    """The wanted models of which no version answers or is about to."""
    states = states_of(index)
    return [name for name in sorted(wanted) if not states.get(name, set()) & (BUSY | {"READY", "unloaded"})]

"""What the routes share while the page runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client.page.access.sessions import Access
from client.page.events import Hub
from client.page.inspecting.station import Station
from client.page.store.counts import waiting_by_category
from client.page.store.database import Database
from client.page.store.inspections import last_arrival

SET_BACK_S = 2.0  # less is a clock that is being kept right


@dataclass
class State:
    """The page's parts, and what people have to be told.

    Attributes:
        stations: by category, in the order of the command line.
        repository, bases: see `Options`.
        waiting: category and number of pictures that wait in each folder that the page watches, by its path.
        notices: sentences that stay on the page until somebody restarts it, by what they are about.
    """

    database: Database
    hub: Hub
    stations: Mapping[str, Station]
    access: Access
    url: str
    repository: Path | None = None
    bases: Mapping[str, Path] = field(default_factory=dict)
    waiting: dict[str, tuple[str, int]] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)

    def waiting_of(self, category: str) -> int:
        """How many pictures of a category wait in folders that the page watches."""
        return sum(number for name, number in list(self.waiting.values()) if name == category)

    def tell_of_others(self) -> None:
        """Tell of pictures that wait, and that no station judges, since their category is not shown any more."""
        for category, number in waiting_by_category(self.database).items():
            if category not in self.stations:
                wait = "1 picture waits" if number == 1 else f"{number:,} pictures wait"
                self.notice(
                    f"waiting {category}",
                    f"{wait} to be judged as {category!r}, which this page does not show and nobody judges; start it "
                    f"with --category {category} too.",
                )

    def now(self) -> float:
        """The clock; says so on the page where it was set back. The order of pictures does not depend on it."""
        now = time.time()
        if (latest := last_arrival(self.database)) is not None and now < latest - SET_BACK_S:
            moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(latest))
            self.notice(
                "clock",
                f"This machine's clock was set back: a picture is from {moment}. Pictures stay in their order; times "
                "and shift counts until then are not to be relied on.",
            )
        elif "clock" in self.notices:
            self.notice("clock", None)
        return now

    def notice(self, about: str, sentence: str | None) -> None:
        """Tell every open page a sentence, or take it back."""
        if self.notices.get(about) == sentence:
            return
        if sentence is None:
            self.notices.pop(about, None)
        else:
            self.notices[about] = sentence
        self.hub.publish("notices", list(self.notices.values()))

"""What was judged, counted; of a shard, and of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ERRORS_KEPT = 3  # sentences, of a shard


@dataclass
class Tally:
    """Counts of images.

    Attributes:
        images: that have a row.
        anomalous: of these.
        not_judged: of these; they are neither good nor anomalous.
        releases: how many images each release judged, by its id.
        servers: how many images each server judged, by its host:port.
        errors: the first sentences that say why an image was not judged.
        synthetic: a category that was trained on rendered images judged.
    """

    images: int = 0
    anomalous: int = 0
    not_judged: int = 0
    releases: Counter[int] = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    synthetic: bool = False

    @property
    def judged(self) -> int:
        """Images that have a verdict."""
        return self.images - self.not_judged

    def add(self, other: Tally) -> None:
        """Count what another one has counted, too."""
        self.images += other.images
        self.anomalous += other.anomalous
        self.not_judged += other.not_judged
        self.releases += other.releases
        self.servers += other.servers
        self.errors = (self.errors + other.errors)[:ERRORS_KEPT]
        self.synthetic = self.synthetic or other.synthetic

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return vars(self) | {"releases": {str(release): n for release, n in self.releases.items()}}

    @classmethod
    def from_dict(cls, values: Any) -> Tally:
        """Read what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is of another form.
        """
        releases = Counter({int(release): int(n) for release, n in dict(values["releases"]).items()})
        servers = Counter({str(server): int(n) for server, n in dict(values["servers"]).items()})
        return cls(**(dict(values) | {"releases": releases, "servers": servers}))

    @classmethod
    def sum_of(cls, tallies: Iterable[Tally]) -> Tally:
        """All of them together."""
        total = cls()
        for tally in tallies:
            total.add(tally)
        return total

"""Which shard serves which categories: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).

Shards and categories lie on a ring, each where its name's hash is. A category goes to the next shard on the ring that
has room for it: no shard takes more than `bound` times the mean. Where categories are placed already, only those move
that have to: what is beyond the bound, what a shard that died had served, and what a new shard is nearest to.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from deploy.planning.sizing import bound

POINTS = 64  # of a shard on the ring: with fewer the arcs are less even
PUT = 1.1  # times the mean, that a category is put on a shard up to
ROUNDING = 1e-9


def place(
    loads: Mapping[str, float], shards: Sequence[str], before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The shard of each category.

    Args:
        loads: of each category, in any unit, above 0.
        shards: their names.
        before: where categories were; those of no shard of today's are placed anew.

    Returns:
        Every category's shard. A shard has more than `bound` times the mean load only where categories are too large
        to be put otherwise: what has room nowhere goes to the emptiest shard.
    """
    ring = Ring(shards)
    total = math.fsum(loads.values())
    mean = total / len(shards)
    held: dict[str, list[str]] = {shard: [] for shard in shards}
    waiting: list[str] = []
    for category in sorted(loads, key=_hash):
        shard = (before or {}).get(category)
        if shard in held:
            held[shard].append(category)
        else:
            waiting.append(category)
    used = {shard: math.fsum(loads[category] for category in held[shard]) for shard in shards}
    placing = _Placing(ring, loads, mean, held, used)
    placing.relieve()
    for category in waiting:
        placing.put(category)
    if before:
        placing.fill_new(set(shards) - set(before.values()))
    return {category: shard for shard, names in held.items() for category in names}


class Ring:
    """The shards around a ring."""

    def __init__(self, shards: Sequence[str]) -> None:
        """Place each shard at POINTS points."""
        points = sorted((_hash(f"{shard}#{point}"), shard) for shard in shards for point in range(POINTS))
        self._hashes = [position for position, _ in points]
        self._shards = [shard for _, shard in points]

    def from_category(self, category: str) -> Iterator[str]:
        """Every shard, in the order in which the ring meets them from a category on."""
        start = bisect.bisect(self._hashes, _hash(category))
        met: set[str] = set()
        for step in range(len(self._shards)):
            shard = self._shards[(start + step) % len(self._shards)]
            if shard not in met:
                met.add(shard)
                yield shard

    def nearest(self, category: str) -> str:
        """The first of them."""
        return next(self.from_category(category))


class _Placing:
    """Categories on their way to shards."""

    def __init__(
        self,
        ring: Ring,
        loads: Mapping[str, float],
        mean: float,
        held: dict[str, list[str]],
        used: dict[str, float],
    ) -> None:
        self._ring, self._loads, self._mean = ring, loads, mean
        self._held, self._used = held, used
        # Whole categories: some shard has the mean rounded up, whatever is done.
        usual = statistics.median(loads.values())
        least = math.ceil(mean / usual * (1 - ROUNDING)) * usual
        most = bound(len(used))
        # Put with less than is allowed, so that what changes later seldom moves what is there.
        self._put_limit = min(PUT, most) * mean * (1 + ROUNDING)
        self._limit = max(most * mean, least) * (1 + ROUNDING)

    def put(self, category: str) -> None:
        """On the next shard that is little above the mean, else one within the bound, else the emptiest."""
        target = self._room(category, self._put_limit)
        if target is None:
            emptiest = min(self._used, key=lambda shard: self._used[shard])
            fits = self._used[emptiest] + self._loads[category] <= self._limit
            target = (self._room(category, self._limit) if fits else None) or emptiest
        self._give(category, target)

    def relieve(self) -> None:
        """Move away what is beyond the bound while others have room, first what the ring would have elsewhere."""
        for shard in list(self._held):
            while self._used[shard] > self._limit:
                strangers = (each for each in self._held[shard] if self._ring.nearest(each) != shard)
                category = next(strangers, self._held[shard][-1])
                if (target := self._room(category, self._put_limit, self._limit)) is None:
                    break
                self._take(category, shard)
                self._give(category, target)

    def _room(self, category: str, *limits: float) -> str | None:
        """The next shard on the ring that has room for a category below the first limit that leaves any."""
        load = self._loads[category]
        for limit in limits:
            around = self._ring.from_category(category)
            found = next((shard for shard in around if self._used[shard] + load <= limit), None)
            if found is not None:
                return found
        return None

    def fill_new(self, new: set[str]) -> None:
        """Give new shards what the ring would have there, up to the mean."""
        wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for shard, categories in self._held.items():
            for category in categories if shard not in new else ():
                if (nearest := self._ring.nearest(category)) in new:
                    wanted[nearest].append((category, shard))
        for shard, found in wanted.items():
            for category, owner in found:
                if self._used[shard] + self._loads[category] <= self._mean * (1 + ROUNDING):
                    self._take(category, owner)
                    self._give(category, shard)

    def _give(self, category: str, shard: str) -> None:
        self._held[shard].append(category)
        self._used[shard] += self._loads[category]

    def _take(self, category: str, shard: str) -> None:
        self._held[shard].remove(category)
        self._used[shard] -= self._loads[category]


def split_hot(loads: Mapping[str, float], shards: int) -> dict[str, float]:
    """Loads without a category that is hotter than others and than what a shard may differ by: it is in several parts.

    Each part is served by a shard; they are called `<category>`, `<category>#2`, `<category>#3` and so on.
    """
    mean = math.fsum(loads.values()) / shards
    most = max(mean * (bound(shards) - 1), statistics.median(loads.values()))
    parts: dict[str, float] = {}
    for category, load in loads.items():
        n = min(shards, max(1, math.ceil(load / most * (1 - ROUNDING))))
        names = [category, *(f"{category}#{part}" for part in range(2, n + 1))]
        parts |= dict.fromkeys(names, load / n)
    return parts


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

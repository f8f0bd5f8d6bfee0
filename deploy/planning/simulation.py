"""What a plan is worth when something changes: a shard more, more categories, a shard that dies, a hot category."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.planning.placement import place, split_hot
from deploy.planning.sizing import SPARE

GROWTH = 0.1  # of the categories
HOT_SHARE = 0.1  # of all images, that one category has


@dataclass(frozen=True)
class Change:
    """What a change does.

    Attributes:
        name: what has changed.
        moved: share of the categories that another shard serves than before.
        may_move: the most that is meant to: 1 / shards + 5 %.
        busiest: load of the busiest shard, to the mean.
        most_categories: of one shard.
    """

    name: str
    moved: float
    may_move: float
    busiest: float
    most_categories: int


def simulate(categories: Sequence[str], shards: Sequence[str], before: Mapping[str, str]) -> list[Change]:
    """Each change by itself, from the placement `before` on."""
    loads = dict.fromkeys(categories, 1.0)
    more = [f"new-{number}" for number in range(math.ceil(GROWTH * len(categories)))]
    placed = _served(before)
    fullest = max(shards, key=lambda shard: (placed[shard], shard))
    hot = categories[0]
    heat = HOT_SHARE * len(categories) / (1 - HOT_SHARE)
    heated = split_hot(loads | {hot: max(1.0, heat)}, len(shards))
    changes = [
        _change("as planned", loads, shards, before),
        _change("a shard more", loads, [*shards, "new"], before),
        _change("a tenth more categories", loads | dict.fromkeys(more, 1.0), shards, before),
        _change(f"a category with {HOT_SHARE:.0%} of the images", heated, shards, before),
    ]
    if len(shards) > 1:
        left = [shard for shard in shards if shard != fullest]
        changes.append(_change("the fullest shard dies", loads, left, before, before_shards=len(shards)))
    return changes


def _change(
    name: str,
    loads: Mapping[str, float],
    shards: Sequence[str],
    before: Mapping[str, str],
    *,
    before_shards: int | None = None,
) -> Change:
    after = place(loads, shards, before)
    moved = sum(after[category] != shard for category, shard in before.items())
    used: dict[str, float] = defaultdict(float)
    for part, shard in after.items():
        used[shard] += loads[part]
    mean = math.fsum(loads.values()) / len(shards)
    return Change(
        name=name,
        moved=moved / len(before),
        may_move=1 / (before_shards or len(set(before.values()))) + SPARE,
        busiest=max(used.values()) / mean,
        most_categories=max(_served(after).values()),
    )


def _served(placement: Mapping[str, str]) -> dict[str, int]:
    """Categories of each shard; the parts of one are one where they meet."""
    served: dict[str, set[str]] = defaultdict(set)
    for part, shard in placement.items():
        served[shard].add(part.partition("#")[0])
    return {shard: len(names) for shard, names in served.items()}

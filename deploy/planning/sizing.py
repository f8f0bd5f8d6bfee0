"""How many shards and replicas: memory decides how many categories a server holds, the load how many servers answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deploy.errors import PlanError
from deploy.planning.figures import Figures

MEMORY_SHARE = 0.85  # of a server's memory: a release that is promoted lies beside the one before for a while
LOAD_SHARE = 0.7  # of what it can judge: beyond that requests wait for each other
MOST = 1.25  # the busiest shard to the mean
SPARE = 0.05  # of all, that may move beyond a shard's fair share
LEAST_REPLICAS = 2  # one may be started anew


def bound(shards: int) -> float:
    """How many times the mean the busiest shard may have: 1.25, and of few shards less.

    The death of the busiest one moves all that it has, which is 1 / shards + 5 % of everything at most with this.
    """
    return min(MOST, 1 + SPARE * shards)


@dataclass(frozen=True)
class Sizes:
    """Servers for a number of categories and a load.

    Attributes:
        categories, images_per_s, memory_mib: what was asked for; the memory is that of one server.
        per_server: categories that fit into a server.
        shards: groups of servers; each serves other categories.
        replicas: servers of a shard, which serve the same categories.
        used_mib: what the fullest server takes.
        busy: share of what it can judge that the busiest server is asked for.
    """

    categories: int
    images_per_s: float
    memory_mib: float
    per_server: int
    shards: int
    replicas: int
    used_mib: float
    busy: float

    @property
    def servers(self) -> int:
        """All servers together."""
        return self.shards * self.replicas


def size(
    categories: int,
    images_per_s: float,
    memory_mib: float,
    figures: Figures,
    *,
    least_replicas: int = LEAST_REPLICAS,
    shards: int | None = None,
) -> Sizes:
    """The fewest shards whose fullest has memory for its categories, and the replicas that keep up with the load.

    Args:
        categories: at least 1.
        images_per_s: of all categories together.
        memory_mib: of one server, on its GPU or, without one, of its machine.
        figures: of one server.
        least_replicas: of each shard, whatever the load.
        shards: as many as these in place of the fewest.

    Raises:
        PlanError: one category does not fit, or the shards that were asked for are too few or too many.
    """
    room = memory_mib * MEMORY_SHARE - figures.server_mib
    if room < 0:
        raise PlanError(
            f"A server with one category takes {figures.server_mib:,.0f} MiB, and {MEMORY_SHARE:.0%} of "
            f"{memory_mib:,.0f} MiB is {memory_mib * MEMORY_SHARE:,.0f}; give it more memory."
        )
    per_server = 1 + int(room / figures.category_mib)
    fewest = _fewest(categories, per_server)
    if shards is not None and not fewest <= shards <= categories:
        raise PlanError(
            f"{categories:,} categories on {shards:,} shards do not go; expected {fewest:,} to {categories:,}, as "
            f"{per_server:,} fit into a server."
        )
    shards = shards or fewest
    load = images_per_s / shards * (bound(shards) if shards > 1 else 1)
    replicas = max(least_replicas, math.ceil(load / (figures.images_per_s * LOAD_SHARE)))
    fullest = most_of_a_shard(categories, shards)
    return Sizes(
        categories=categories,
        images_per_s=images_per_s,
        memory_mib=memory_mib,
        per_server=per_server,
        shards=shards,
        replicas=replicas,
        used_mib=figures.server_mib + (fullest - 1) * figures.category_mib,
        busy=load / (replicas * figures.images_per_s),
    )


def most_of_a_shard(categories: int, shards: int) -> int:
    """Categories of the fullest shard: as many as its bound, and at least the mean rounded up."""
    if shards == 1:
        return categories
    return max(math.floor(bound(shards) * categories / shards), math.ceil(categories / shards))


def _fewest(categories: int, per_server: int) -> int:
    shards = math.ceil(categories / per_server)
    while most_of_a_shard(categories, shards) > per_server:
        shards += max(1, int(shards * 0.001))
    return min(shards, categories)

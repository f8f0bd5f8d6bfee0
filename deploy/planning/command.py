"""`python -m deploy plan`: servers for many categories."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from deploy.errors import PlanError
from deploy.planning.figures import Figures, read_figures
from deploy.planning.placement import place
from deploy.planning.simulation import Change, simulate
from deploy.planning.sizing import LEAST_REPLICAS, Sizes, size
from deploy.repository import find_categories

PATH = click.Path(path_type=Path)
MOST_CATEGORIES = 100_000
MIB_PER_GB = 1024
MOST = 1e12  # of anything


class Amount(click.FloatRange):
    """A number above 0 that can be computed with; NaN and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or a refusal."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not in the range 0<x<={MOST:g}.", param, ctx)
        return number


AMOUNT = Amount(0, MOST, min_open=True)


@dataclass(frozen=True)
class Plan:
    """Shards, what each serves, and what changes would do.

    Attributes:
        sizes: how many servers, and how full they are.
        figures: what they were computed from.
        placement: the categories of each shard.
        moved: share of the categories that another shard served in the plan before; None without one.
        changes: what the simulation says.
    """

    sizes: Sizes
    figures: Figures
    placement: dict[str, list[str]]
    moved: float | None
    changes: list[Change]

    def to_json(self) -> str:
        """One JSON object."""
        servers = {"servers": self.sizes.servers}
        return json.dumps(asdict(self) | {"sizes": asdict(self.sizes) | servers}, indent=2)


@click.command()
@click.option(
    "--categories", type=click.IntRange(1, MOST_CATEGORIES), help="How many; or name a --repository."
)
@click.option(
    "--repository", type=PATH, help="Place the categories that are published there, by their names."
)
@click.option(
    "--rps",
    type=AMOUNT,
    required=True,
    help="Images a second, of all categories together.",
)
@click.option(
    "--gpu-gb",
    type=AMOUNT,
    required=True,
    help="Memory of a server's GPU, GiB; without a GPU that of its machine.",
)
@click.option(
    "--preset", type=click.Choice(["edge", "paper"]), default="edge", help="Whose measured figures are taken."
)
@click.option("--server-mib", type=AMOUNT, help="Your own: a server with one category.")
@click.option("--category-mib", type=AMOUNT, help="Your own: each further category.")
@click.option("--images-per-s", type=AMOUNT, help="Your own: what a server judges.")
@click.option("--shards", type=click.IntRange(1), help="This many in place of the fewest that do.")
@click.option(
    "--replicas", type=click.IntRange(1), default=LEAST_REPLICAS, help="Servers of each shard, at least."
)
@click.option("--previous", type=PATH, help="A plan that --json printed: its categories stay where they can.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program in place of tables.")
def plan(as_json: bool, categories: int | None, repository: Path | None, **options: Any) -> None:
    """Compute servers for many categories: shards, replicas, memory, which shard serves what, and what changes move.

    Starts nothing and asks nobody. Instances, threads and queues of one server are `python -m export plan`.
    """
    if (categories is None) == (repository is None):
        raise click.UsageError("Give either --categories or --repository.")
    names = (
        list(find_categories(repository))
        if repository
        else [f"category-{i + 1}" for i in range(categories or 0)]
    )
    if not names:
        raise PlanError(f"{repository} holds no category; publish one, or give --categories.")
    made = make_plan(names, **options)
    if as_json:
        click.echo(made.to_json())
    else:
        _show(made)


def make_plan(
    names: Sequence[str],
    *,
    rps: float,
    gpu_gb: float,
    preset: str,
    server_mib: float | None,
    category_mib: float | None,
    images_per_s: float | None,
    shards: int | None,
    replicas: int,
    previous: Path | None,
) -> Plan:
    """A plan for named categories.

    Raises:
        PlanError: the servers are too small, or the plan before cannot be read.
    """
    own = {"server_mib": server_mib, "category_mib": category_mib, "images_per_s": images_per_s}
    figures = read_figures(preset, own)
    sizes = size(len(names), rps, gpu_gb * MIB_PER_GB, figures, least_replicas=replicas, shards=shards)
    hosts = [f"shard-{number + 1}" for number in range(sizes.shards)]
    before = _read_previous(previous) if previous else {}
    placement = place(dict.fromkeys(names, 1.0), hosts, before)
    stayed = [name for name in names if name in before]
    moved = sum(placement[name] != before[name] for name in stayed) / len(stayed) if stayed else None
    served: dict[str, list[str]] = {host: [] for host in hosts}
    for name in names:
        served[placement[name]].append(name)
    return Plan(sizes, figures, served, moved, simulate(names, hosts, placement))


def _read_previous(path: Path) -> Mapping[str, str]:
    try:
        placement = json.loads(path.read_text(encoding="utf-8"))["placement"]
        return {category: shard for shard, categories in placement.items() for category in categories}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(
            f"{path} is no plan ({error}); expected what `python -m deploy plan --json` has printed."
        ) from None


def _show(made: Plan) -> None:
    console, sizes, figures = Console(highlight=False), made.sizes, made.figures
    console.print(
        f"{sizes.categories:,} categories, {sizes.images_per_s:,.0f} images/s: {sizes.shards:,} shards of "
        f"{sizes.replicas} servers, {sizes.servers:,} servers. The fullest serves "
        f"{max(map(len, made.placement.values())):,} categories ({sizes.per_server:,} fit) and has room for "
        f"{sizes.used_mib:,.0f} of {sizes.memory_mib:,.0f} MiB at most; the busiest is asked for {sizes.busy:.0%} of "
        "what it can judge."
    )
    console.print(
        f"From {figures.measured}, {figures.on}: {figures.server_mib:g} MiB and {figures.category_mib:g} for each "
        f"further category, {figures.images_per_s:g} images/s ({figures.source}). No server with a GPU was measured: "
        "state your own with --server-mib, --category-mib and --images-per-s."
    )
    if made.moved is not None:
        console.print(f"{made.moved:.1%} of the categories move from where the plan before had them.")
    table = Table(
        "what changes", "moved", "at most", "busiest, to the mean", "categories of a shard, at most"
    )
    for change in made.changes:
        table.add_row(
            change.name,
            f"{change.moved:.1%}",
            f"{change.may_move:.1%}",
            f"{change.busiest:.2f}",
            f"{change.most_categories:,}",
        )
    console.print(table)

"""What was measured of one server: its memory with one category, that of each further one, and images a second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import PlanError

MEASURED = Path(__file__).with_name("figures.json")
OPTIONS = {
    "server_mib": "--server-mib",
    "category_mib": "--category-mib",
    "images_per_s": "--images-per-s",
}


@dataclass(frozen=True)
class Figures:
    """Of one server.

    Attributes:
        server_mib: memory with its first category.
        category_mib: of each further one.
        images_per_s: that it judges, of all its categories together.
        measured: day of the measurement.
        source: where it is described, and what was stated in its place.
        on: on which machine.
    """

    server_mib: float
    category_mib: float
    images_per_s: float
    measured: str
    source: str
    on: str


def read_figures(preset: str, own: Mapping[str, float | None]) -> Figures:
    """The figures of a preset, `edge` or `paper`, with one's `own` in place of those measured here.

    Raises:
        PlanError: one was not measured here, and is not stated.
    """
    found = json.loads(MEASURED.read_text(encoding="utf-8"))[preset]
    stated = {name: value for name, value in own.items() if value is not None}
    values = {name: stated.get(name, found[name]) for name in OPTIONS}
    if unknown := [OPTIONS[name] for name, value in values.items() if value is None]:
        raise PlanError(
            f"No such server of {preset} was measured here; state your own with {' and '.join(unknown)}."
        )
    source = found["source"]
    if stated:
        source += f"; your own {' and '.join(OPTIONS[name] for name in stated)}"
    return Figures(
        server_mib=float(values["server_mib"]),
        category_mib=float(values["category_mib"]),
        images_per_s=float(values["images_per_s"]),
        measured=found["measured"],
        source=source,
        on=found["on"],
    )

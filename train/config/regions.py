"""Regions as they are drawn on a picture of the category: where to inspect it, and what to ignore there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Place = Annotated[float, Field(ge=0)]
Corner = tuple[Place, Place]
Polygon = Annotated[tuple[Corner, ...], Field(min_length=3)]


class DrawnRegions(BaseModel):
    """The content of regions.json.

    Attributes:
        format: of the file.
        picture: width and height, pixels, of the upright picture that they were drawn on.
        inspect: polygons of at least three corners [x, y], in pixels of the picture; none means all of it.
        ignore: polygons of what never counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    picture: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    inspect: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()

    def __str__(self) -> str:
        width, height = self.picture
        counts = f"{len(self.inspect)} to inspect, {len(self.ignore)} to ignore"
        return f"{counts}, drawn on {width} x {height} pixels"

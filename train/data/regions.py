"""Regions from a file, beside the pictures that they are to hold for, and on the anomaly map of a configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from model_repository.distance_fusion.fusion_regions import (
    LEAST_CORNERS,
    MOST_CORNERS,
    Polygon,
    Regions,
    inspected_pixels,
)
from model_repository.image_decoder.resizing import fitted_part
from model_repository.image_size import filled_size, height_width, size_text
from train.config import DrawnRegions, FitConfig
from train.data.category import CategoryData
from train.data.shapes import SAME_SHAPE, ImageShape, differ_in_shape, keeps_aspect, read_shapes
from train.errors import RegionsError
from train.support.files import readable_text

MOST_BYTES = 4_000_000
REFERENCE_PICTURE = (
    "reference.png"  # what pictures of a run are aligned to, in its folder, to draw regions on
)
KEYS = ("format", "picture", "inspect", "ignore")
EXPECTED = (
    'expected {"format": 1, "picture": [width, height], "inspect": [polygons], "ignore": [polygons]}, a polygon being '
    "a list of corners [x, y] in pixels of the picture"
)


def read_regions(path: Path) -> DrawnRegions:
    """Read a file of regions, as the page writes it.

    Raises:
        RegionsError: what is wrong with it, the first fault alone.
    """
    name = f"Regions {readable_text(path)}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RegionsError(f"{name} cannot be read ({error.strerror or error}); {EXPECTED}.") from None
    if not content.strip():
        raise RegionsError(f"{name}: the file is empty; {EXPECTED}.")
    if len(content) > MOST_BYTES:
        raise RegionsError(
            f"{name}: the file has {len(content):,} bytes, at most {MOST_BYTES:,} are read; {EXPECTED}."
        )
    try:
        values = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise RegionsError(f"{name}: the file is no JSON ({error}); {EXPECTED}.") from None
    try:
        return _checked(values)
    except ValueError as error:
        raise RegionsError(f"{name}: {error}.") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands in it twice")
    return values


def _checked(values: Any) -> DrawnRegions:
    """The regions that a JSON value holds.

    Raises:
        ValueError: it holds none, in words.
    """
    if not isinstance(values, dict):
        raise ValueError(f"found {_shortly(values)}; {EXPECTED}")
    if unknown := sorted(set(values) - set(KEYS)):
        raise ValueError(f"unknown key {_shortly(unknown[0])}; {EXPECTED}")
    if missing := [key for key in KEYS[:2] if key not in values]:
        raise ValueError(f"{missing[0]} is missing; {EXPECTED}")
    if type(values["format"]) is not int or values["format"] != 1:
        raise ValueError(f"format is {_shortly(values['format'])}; expected 1, which this version reads")
    picture = values["picture"]
    sides = picture if isinstance(picture, list) and len(picture) == 2 else []
    if not sides or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"picture is {_shortly(picture)}; expected [width, height], in whole pixels")
    width, height = sides
    inspect, ignore = (
        _polygons(values.get(name, []), name, width=width, height=height) for name in ("inspect", "ignore")
    )
    n_corners = sum(map(len, (*inspect, *ignore)))
    if not n_corners:
        raise ValueError(
            "no polygon is in it; draw what to inspect or to ignore, or take --regions none to inspect everything"
        )
    if n_corners > MOST_CORNERS:
        raise ValueError(f"{n_corners:,} corners; expected at most {MOST_CORNERS:,} in all polygons together")
    return DrawnRegions(picture=(width, height), inspect=inspect, ignore=ignore)


def _polygons(values: Any, name: str, *, width: int, height: int) -> tuple[Polygon, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{name} is {_shortly(values)}; {EXPECTED}")
    return tuple(
        _polygon(polygon, f"{name} polygon {number}", width=width, height=height)
        for number, polygon in enumerate(values, start=1)
    )


def _polygon(values: Any, name: str, *, width: int, height: int) -> Polygon:
    if not isinstance(values, list):
        raise ValueError(f"{name} is {_shortly(values)}; {EXPECTED}")
    if len(values) < LEAST_CORNERS:
        raise ValueError(f"{name} has {len(values)} corners; expected at least {LEAST_CORNERS}")
    corners = []
    for number, corner in enumerate(values, start=1):
        if not (isinstance(corner, list) and len(corner) == 2 and all(map(_is_number, corner))):
            raise ValueError(f"corner {number} of {name} is {_shortly(corner)}; expected [x, y], two numbers")
        x, y = float(corner[0]), float(corner[1])
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"corner {number} of {name} lies at {x:g}, {y:g}, outside the picture of {width} x {height} pixels; "
                "move it inside"
            )
        corners.append((x, y))
    return tuple(corners)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)


def _shortly(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require_regions_hold(data: CategoryData, config: FitConfig) -> None:
    """Make sure that a configuration's regions, where it has any, hold for the pictures that it is trained on.

    Raises:
        RegionsError: the pictures are of another shape, or of several, or nothing is left to inspect.
    """
    drawn = config.regions
    if drawn is None:
        return
    if config.align == "on" and drawn.picture != height_width(config.image_size)[::-1]:
        height, width = height_width(config.image_size)
        raise RegionsError(
            f"Regions of parts that are aligned are drawn on the reference picture of {width} x {height} pixels, "
            f"{REFERENCE_PICTURE} in the run's folder, and these on one of {drawn.picture[0]} x {drawn.picture[1]}; "
            "draw them there, or take --align off."
        )
    require_drawn_shape(config, read_shapes(data.train_good), what=f"training pictures of {data.category!r}")
    keep = keeps_aspect(data, asked=config.aspect, size=config.image_size, quiet=True)
    regions = map_regions(config, keep_aspect=keep)
    assert regions is not None
    height, width = height_width(config.image_size)
    if config.is_native:
        width, height = drawn.picture
        height, width = filled_size(height, width)
    try:
        inspected_pixels(regions, (height, width))
    except ValueError:
        raise RegionsError(
            f"Regions ({drawn}) leave nothing to inspect: at {size_text(config.image_size)} pixels no pixel's centre "
            "is left; draw them larger, or ignore less."
        ) from None


def require_drawn_shape(config: FitConfig, shapes: list[ImageShape], *, what: str) -> None:
    """Make sure that pictures are of the shape that a configuration's regions are drawn on.

    Parts that are aligned may come in pictures of any shape.

    Raises:
        RegionsError: some are of another; of pictures at their own resolution, of another size.
    """
    if config.regions is None or config.align == "on" or not shapes:
        return
    width, height = config.regions.picture
    if config.is_native:
        others = [shape for shape in shapes if (shape.width, shape.height) != (width, height)]
        hold = "hold at native resolution for pictures of just that size"
    else:
        others = [
            shape
            for shape in shapes
            if max(shape.aspect * height, width) > SAME_SHAPE * min(shape.aspect * height, width)
        ]
        hold = "hold for pictures of that shape"
    if not others:
        return
    drawn = f"Regions are drawn on a picture of {width} x {height} pixels and {hold}"
    if differ_in_shape(shapes):
        raise RegionsError(
            f"{drawn}; {len(others)} of {len(shapes)} {what} have another, {others[0]} among them: where shapes "
            "differ, no region can hold for all; sort the pictures by shape, or take --regions none."
        )
    raise RegionsError(
        f"{drawn}; {others[0]} of the {what} has another; draw them on one of these, or take --regions none."
    )


def map_regions(config: FitConfig, *, keep_aspect: bool) -> Regions | None:
    """A configuration's regions in pixels of its anomaly map; of native resolution, of the picture; None for none.

    What a picture is filled up with is in none of them: it repeats the edge, which may be ignored.

    Args:
        config: with the regions as they are drawn, and the size.
        keep_aspect: whether pictures keep their shape where they are resized, see `train.data.shapes`.
    """
    drawn = config.regions
    if drawn is None:
        return None
    width, height = drawn.picture
    rows, columns = slice(0, height), slice(0, width)
    size = drawn.picture
    if not config.is_native:
        map_height, map_width = height_width(config.image_size)
        size = (map_width, map_height)
        rows, columns = slice(0, map_height), slice(0, map_width)
        if keep_aspect and config.align == "off":  # the reference picture fills all of it
            rows, columns = fitted_part(drawn.picture, config.image_size)

    def moved(polygons: tuple[Polygon, ...]) -> tuple[Polygon, ...]:
        return tuple(
            tuple(
                (
                    columns.start + x * (columns.stop - columns.start) / width,
                    rows.start + y * (rows.stop - rows.start) / height,
                )
                for x, y in polygon
            )
            for polygon in polygons
        )

    inspect = drawn.inspect
    if not inspect and ((keep_aspect and config.align == "off") or config.is_native):
        inspect = (((0.0, 0.0), (width, 0.0), (width, height), (0.0, height)),)
    return Regions(size=size, inspect=moved(inspect), ignore=moved(drawn.ignore))

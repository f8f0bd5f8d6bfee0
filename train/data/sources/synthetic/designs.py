"""What the parts of a category look like: an outline, a material, a print and what they lie on.

Lengths are in units of half the picture's side (the picture spans -1 to 1, y down); colours are RGB, 0 to 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Field = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
Distance = Callable[[Field, Field], Field]

_PRINT_PX = 640  # the width at which the print is drawn, once for a category


@dataclass(frozen=True)
class Shape:
    """A part's outline.

    Attributes:
        distance: signed distance to the outline at part coordinates, negative inside.
        bevel: how far in the edge is rounded.
        print_half: half width and half height of the print.
        print_radius: the circle the print runs round; 0 where it stands straight in the middle.
    """

    distance: Distance
    bevel: float
    print_half: tuple[float, float]
    print_radius: float = 0.0


@dataclass(frozen=True)
class Finish:
    """A part's material; `texture` is `brushed`, `speckled` or `grain`."""

    texture: str
    body: Colour
    ink: Colour
    gloss: float


@dataclass(frozen=True)
class Ground:
    """What the part lies on; `ribs` is how often a belt's pattern repeats across the picture, 0 for none."""

    colour: Colour
    ribs: int = 0


@dataclass(frozen=True)
class Design:
    """All that the parts of one category have in common; `print_raster` is the print's opacity [h, w]."""

    shape: Shape
    finish: Finish
    ground: Ground
    print_raster: Field


def design_part(category: str, seed: int) -> Design:
    """Decide what a category's parts look like: alike for MVTec AD's names, by the hash of any other name."""
    rng = generator(seed, category)
    chosen = (str(rng.choice(list(_SHAPES))), str(rng.choice(list(_FINISHES))))
    shape_name, finish_name = _KNOWN.get(category, chosen)
    shape, finish = _SHAPES[shape_name], _FINISHES[finish_name]
    grounds = [ground for ground in _GROUNDS if abs(np.mean(ground.colour) - np.mean(finish.body)) > 0.2]
    ground = grounds[rng.integers(len(grounds))]
    return Design(shape, finish, ground, _draw_print(f"{_initials(category)} {rng.integers(10, 100)}", shape))


def generator(seed: int, name: str) -> Generator:
    """Randomness from the seed and a name alone, so that no image depends on how many others there are."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def _initials(category: str) -> str:
    """`MN` for `metal_nut`, `PI` for `pill`."""
    words = re.findall(r"[A-Za-z0-9]+", category)
    return ("".join(word[0] for word in words[:3]) if len(words) > 1 else category[:2]).upper()


def _draw_print(label: str, shape: Shape) -> Field:
    """Draw the label to fill the shape's print area, or several times round its circle."""
    half_width, half_height = shape.print_half
    width, height = _PRINT_PX, round(_PRINT_PX * half_height / half_width)
    repeats = round(half_width / half_height / len(label)) if shape.print_radius else 1
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((0, 0), label, ImageFont.load_default(100))
    font_px = 100 * min(0.9 * width / repeats / (right - left), 0.8 * height / (bottom - top))
    for i in range(repeats):
        centre = (width * (i + 0.5) / repeats, height / 2)
        draw.text(centre, label, fill=255, font=ImageFont.load_default(font_px), anchor="mm")
    opacity: Field = np.asarray(image, np.float32) / 255
    return opacity


def _disc(radius: float) -> Distance:
    return lambda u, v: np.hypot(u, v) - radius


def _box(half_width: float, half_height: float, corner: float) -> Distance:
    def distance(u: Field, v: Field) -> Field:
        du, dv = abs(u) - half_width + corner, abs(v) - half_height + corner
        outside, inside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0)), np.minimum(np.maximum(du, dv), 0)
        return np.asarray(outside + inside - corner)

    return distance


def _hexagon(apothem: float) -> Distance:
    return lambda u, v: np.maximum(abs(v), abs(u) * 0.8660254 + abs(v) * 0.5) - apothem


def _cog(radius: float) -> Distance:
    return lambda u, v: np.hypot(u, v) - radius - 0.035 * np.tanh(3 * np.cos(14 * np.arctan2(v, u)))


def _holed(outer: Distance, hole: Distance) -> Distance:
    return lambda u, v: np.maximum(outer(u, v), -hole(u, v))


_SHAPES = {
    "disc": Shape(_disc(0.66), bevel=0.16, print_half=(0.4, 0.2)),
    "tablet": Shape(_box(0.84, 0.48, 0.46), bevel=0.46, print_half=(0.5, 0.24)),
    "capsule": Shape(_box(0.86, 0.34, 0.34), bevel=0.34, print_half=(0.5, 0.18)),
    "plate": Shape(_box(0.8, 0.54, 0.1), bevel=0.05, print_half=(0.5, 0.24)),
    "swatch": Shape(_box(0.84, 0.84, 0.05), bevel=0.03, print_half=(0.5, 0.2)),
    "ring": Shape(
        _holed(_disc(0.72), _disc(0.36)), bevel=0.1, print_half=(0.54 * np.pi, 0.11), print_radius=0.54
    ),
    "nut": Shape(
        _holed(_hexagon(0.66), _disc(0.32)), bevel=0.06, print_half=(0.49 * np.pi, 0.1), print_radius=0.49
    ),
    "screw": Shape(
        _holed(_disc(0.7), _hexagon(0.28)), bevel=0.12, print_half=(0.48 * np.pi, 0.1), print_radius=0.48
    ),
    "cog": Shape(
        _holed(_cog(0.7), _disc(0.2)), bevel=0.06, print_half=(0.45 * np.pi, 0.12), print_radius=0.45
    ),
}

_FINISHES = {
    "steel": Finish("brushed", body=(0.55, 0.56, 0.58), ink=(0.13, 0.13, 0.15), gloss=0.22),
    "brass": Finish("brushed", body=(0.64, 0.51, 0.27), ink=(0.20, 0.13, 0.07), gloss=0.22),
    "wood": Finish("brushed", body=(0.58, 0.40, 0.25), ink=(0.18, 0.10, 0.06), gloss=0.03),
    "coated": Finish("speckled", body=(0.78, 0.75, 0.70), ink=(0.62, 0.22, 0.18), gloss=0.12),
    "stone": Finish("speckled", body=(0.56, 0.57, 0.55), ink=(0.16, 0.17, 0.18), gloss=0.05),
    "white plastic": Finish("grain", body=(0.76, 0.76, 0.74), ink=(0.12, 0.20, 0.42), gloss=0.15),
    "blue plastic": Finish("grain", body=(0.20, 0.37, 0.60), ink=(0.85, 0.87, 0.88), gloss=0.18),
    "green plastic": Finish("grain", body=(0.22, 0.46, 0.36), ink=(0.86, 0.86, 0.78), gloss=0.18),
    "rubber": Finish("grain", body=(0.26, 0.26, 0.27), ink=(0.80, 0.78, 0.70), gloss=0.05),
    "leather": Finish("grain", body=(0.45, 0.28, 0.19), ink=(0.85, 0.72, 0.50), gloss=0.06),
}

_GROUNDS = (
    Ground((0.07, 0.07, 0.08)),
    Ground((0.82, 0.82, 0.81)),
    Ground((0.14, 0.26, 0.24), ribs=14),
    Ground((0.36, 0.38, 0.41)),
    Ground((0.20, 0.21, 0.23), ribs=10),
)

# Shape and finish for MVTec AD's names, so that users without a copy of it see something alike.
_KNOWN = {
    "bottle": ("ring", "leather"),
    "cable": ("ring", "blue plastic"),
    "capsule": ("capsule", "coated"),
    "carpet": ("swatch", "stone"),
    "grid": ("swatch", "steel"),
    "hazelnut": ("disc", "wood"),
    "leather": ("swatch", "leather"),
    "metal_nut": ("nut", "steel"),
    "pill": ("tablet", "coated"),
    "screw": ("screw", "steel"),
    "tile": ("swatch", "stone"),
    "toothbrush": ("capsule", "blue plastic"),
    "transistor": ("plate", "rubber"),
    "wood": ("swatch", "wood"),
    "zipper": ("plate", "brass"),
}

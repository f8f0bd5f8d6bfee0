"""Damage a part before it is photographed; the mask marks the pixels that the damage changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from model_repository.image_size import ImageSize, height_width
from train.data.sources.synthetic.designs import Colour, Design, Field
from train.data.sources.synthetic.rendering import (
    Part,
    as_image,
    blend,
    photograph,
    picture_grid,
    place_part,
    smooth_noise,
    smoothstep,
)

Photo = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Points = Field  # x and y, [2] or [N, 2]

_VISIBLE_LEVELS = 8  # of 255: what differs less counts as unchanged
_CLEAR_LEVELS = 20  # a defect that differs less on average is drawn again
_SMALLEST_SPOT = 2e-4  # of the picture: smaller islands of change are removed
_SMALLEST_DEFECT = 1e-3


def render(
    design: Design, rng: Generator, *, image_size: ImageSize, defect: str | None = None
) -> tuple[Photo, Mask]:
    """Photograph a part, good or with a defect.

    Args:
        design: what the category's parts look like.
        rng: the image's own; the same state gives the same part and camera, with a defect or without.
        image_size: of the picture.
        defect: one of `DAMAGES`, or none.

    Returns:
        The picture [H, W, 3] RGB and the mask [H, W] of the pixels that the defect changed.
    """
    part, shot = place_part(design, rng, image_size)
    good = photograph(part, shot)
    if defect is None:
        return good, np.zeros(height_width(image_size), bool)
    while True:
        damaged = photograph(DAMAGES[defect](part, rng), shot)
        levels = abs(damaged.astype(np.int16) - good).max(axis=2)
        mask = _without_spots(levels >= _VISIBLE_LEVELS)
        if mask.mean() >= _SMALLEST_DEFECT and levels[mask].mean() >= _CLEAR_LEVELS:
            return np.where(mask[..., None], damaged, good), mask


def _without_spots(mask: Mask) -> Mask:
    """Remove islands of a few pixels."""
    islands, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    large = np.bincount(islands.ravel()) >= _SMALLEST_SPOT * mask.size
    large[0] = False  # what lies between the islands
    return np.asarray(large[islands])


def _scratch(part: Part, rng: Generator) -> Part:
    start = _point_on(part, rng)
    length, bearing, bend = rng.uniform(0.25, 0.9), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.5)
    bearings = bearing + bend * np.linspace(-1, 1, 24)
    steps = _directions(bearings) * length / 24
    path = start + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    groove = _stroke(part, [path], width=rng.uniform(0.016, 0.036))
    strength = rng.uniform(0.45, 0.85)
    return replace(
        part,
        height=part.height - 0.01 * groove,
        albedo=blend(part.albedo, _contrast(part, 0.35), strength * groove),
        ink=part.ink * (1 - strength * groove),
    )


def _crack(part: Part, rng: Generator) -> Part:
    trunk = _random_walk(_point_on(part, rng), rng.uniform(0, 2 * np.pi), int(rng.integers(14, 34)), rng)
    forks = rng.choice(len(trunk), size=rng.integers(0, 3), replace=False)
    branches = [_random_walk(trunk[fork], rng.uniform(0, 2 * np.pi), 8, rng) for fork in forks]
    gap = _stroke(part, [trunk, *branches], width=rng.uniform(0.012, 0.026))
    strength = rng.uniform(0.6, 0.9)
    return replace(
        part,
        height=part.height - 0.012 * gap,
        albedo=part.albedo * (1 - strength * gap),
        ink=part.ink * (1 - gap),
    )


def _dent(part: Part, rng: Generator) -> Part:
    radius = _size(rng, 0.08, 0.24)
    hollow = smoothstep(_blob(_point_on(part, rng), radius, 0.08, part, rng), 0.7 * radius)
    # Bruised unevenly by colour: else the lit slope would pass unseen where it is as bright as before.
    bruise = as_image((0.08, 0.11, 0.15))
    return replace(
        part,
        height=part.height - rng.uniform(0.2, 0.35) * radius * hollow,
        albedo=part.albedo - hollow * bruise,
    )


def _contamination(part: Part, rng: Generator) -> Part:
    centre, radius = _point_on(part, rng), _size(rng, 0.07, 0.28)
    stain = smoothstep(_blob(centre, radius, 0.35, part, rng), 0.03)
    for _ in range(rng.integers(0, 4)):
        droplet = centre + rng.normal(0, 1.2 * radius, 2)
        spot = smoothstep(_blob(droplet, rng.uniform(0.04, 0.06), 0.2, part, rng), 0.02)
        stain = np.maximum(stain, spot)
    patchy = 1 + 0.15 * smooth_noise(rng, stain.shape, 0.05)
    opacity = np.clip(rng.uniform(0.5, 0.85) * stain * patchy, 0, 1)
    dirt = _contrast(part, 0.25, tint=(1.15, 1.0, 0.8))
    return replace(part, albedo=blend(part.albedo, dirt, opacity), ink=part.ink * (1 - opacity))


def _colour(part: Part, rng: Generator) -> Part:
    patch = smoothstep(_blob(_point_on(part, rng), _size(rng, 0.12, 0.42), 0.25, part, rng), 0.08)
    tints: list[Colour] = [
        (0.14, -0.02, -0.14),
        (-0.14, 0.0, 0.13),
        (0.1, -0.13, -0.06),
        (-0.13, 0.06, -0.12),
    ]
    tint = as_image(tints[rng.integers(len(tints))])
    return replace(part, albedo=part.albedo + rng.uniform(0.6, 1.3) * patch * tint)


def _missing_print(part: Part, rng: Generator) -> Part:
    centre = _point_where(part.ink > 0.7 * part.ink.max(), rng)
    gone = smoothstep(_blob(centre, _size(rng, 0.12, 0.5), 0.2, part, rng), 0.03)
    return replace(part, ink=part.ink * (1 - rng.uniform(0.75, 1.0) * gone))


def _broken_edge(part: Part, rng: Generator) -> Part:
    shape = part.depth.shape
    centre = _point_where(abs(part.depth) < 2 / min(shape), rng)
    ragged = 0.012 * smooth_noise(rng, shape, 0.04) + 0.005 * smooth_noise(rng, shape, 0.012)
    bite = _blob(centre, _size(rng, 0.12, 0.34), 0.2, part, rng) + ragged
    fracture = smoothstep(bite + 0.08, 0.07)
    return replace(
        part,
        depth=np.minimum(part.depth, -bite),
        height=part.height - (0.04 + 0.4 * ragged) * fracture,
        albedo=blend(part.albedo, _contrast(part, 0.2), 0.6 * fracture),
        ink=part.ink * (1 - fracture),
    )


DAMAGES: dict[str, Callable[[Part, Generator], Part]] = {
    "broken_edge": _broken_edge,
    "colour": _colour,
    "contamination": _contamination,
    "crack": _crack,
    "dent": _dent,
    "missing_print": _missing_print,
    "scratch": _scratch,
}


def _size(rng: Generator, smallest: float, largest: float) -> float:
    """A length between two, small ones as likely as large ones by ratio."""
    return float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))


def _point_on(part: Part, rng: Generator) -> Points:
    """A random place on the part, not at its very edge."""
    return _point_where(part.depth > 0.04, rng)


def _point_where(allowed: Mask, rng: Generator) -> Points:
    pixels = np.argwhere(allowed)
    row, column = pixels[rng.integers(len(pixels))]
    short = min(allowed.shape)
    return np.asarray((np.array([column, row]) + 0.5) * (2 / short) - np.array(allowed.shape[::-1]) / short)


def _contrast(part: Part, amount: float, tint: Colour = (1, 1, 1)) -> Field:
    """A colour `amount` darker than a light part, lighter than a dark one."""
    body = part.albedo[:, part.depth > 0].mean(axis=1).reshape(3, 1, 1)
    shift = -amount if body.mean() > 0.45 else amount
    return np.asarray(np.clip((body + shift) * as_image(tint), 0.03, 0.9))


def _blob(centre: Points, radius: float, roughness: float, part: Part, rng: Generator) -> Field:
    """Depth [H, W] inside an irregular round patch, negative outside."""
    x, y = picture_grid(part.depth.shape)
    dx, dy = x - float(centre[0]), y - float(centre[1])
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for lobes in (2, 3, 5, 7):
        outline += roughness * rng.uniform(0.3, 1) / lobes * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    depth: Field = radius * outline - np.hypot(dx, dy)
    return depth


def _random_walk(start: Points, bearing: float, n_steps: int, rng: Generator) -> Points:
    bearings = bearing + np.cumsum(rng.normal(0, 0.2, n_steps)) + rng.normal(0, 0.4, n_steps)
    steps = _directions(bearings) * rng.uniform(0.012, 0.045, (n_steps, 1))
    path: Points = start + np.cumsum(steps, axis=0)
    return path


def _directions(bearings: Field) -> Points:
    return np.stack([np.cos(bearings), np.sin(bearings)], axis=1)


def _stroke(part: Part, paths: list[Points], width: float) -> Field:
    """Opacity [H, W] of lines through points, thinning towards their ends."""
    rows, columns = part.depth.shape
    side = min(rows, columns)
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    for path in paths:
        points = (path + np.array([columns, rows]) / side) * side / 2
        taper = np.sqrt(np.sin(np.linspace(0.15, np.pi - 0.15, len(points) - 1)))
        for start, end, thickness in zip(points, points[1:], taper * width * side / 2, strict=False):
            draw.line([*start, *end], fill=255, width=max(2, round(thickness)))
            draw.circle(tuple(end), thickness / 2, fill=255)
    opacity = ndimage.gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.7)
    return np.asarray(opacity)

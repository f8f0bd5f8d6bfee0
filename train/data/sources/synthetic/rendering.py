"""Photograph a part: laid down a little differently each time, lit, and seen by a camera.

Lengths are in units of half the picture's shorter side (which spans -1 to 1, y down); colours are RGB, 0 to 1,
and images [3, H, W], twice the picture's size, until they are photographed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model_repository.image_size import ImageSize, height_width
from train.data.sources.synthetic.designs import Colour, Design, Field

SUPERSAMPLING = 2
_ROUGHNESS = {"brushed": 0.0001, "speckled": 0.0004, "grain": 0.001}
_FLATNESS = 0.6  # of the rounded edge: 1 would be a quarter of a circle
_ENGRAVING = 0.006  # depth of the print
_AMBIENT = 0.35  # share of the light that comes from everywhere
_SENSOR_NOISE = 0.008


@dataclass(frozen=True)
class Part:
    """One part as it lies in the picture.

    Attributes:
        depth: [H, W] how far inside the outline, negative outside.
        height: [H, W] of the surface.
        albedo: [3, H, W] the body's colour.
        ink: [H, W] the print's opacity.
    """

    depth: Field
    height: Field
    albedo: Field
    ink: Field


@dataclass(frozen=True)
class Shot:
    """What stays the same when the part is damaged.

    Attributes:
        ink: [3, 1, 1] the print's colour.
        gloss: strength of the highlights.
        ground: [3, H, W] what the part lies on.
        light: unit vector towards the lamp.
        lighting: [H, W] how bright the lamp is across the picture.
        noise: [3, H, W] the sensor's.
    """

    ink: Field
    gloss: float
    ground: Field
    light: tuple[float, float, float]
    lighting: Field
    noise: Field


def place_part(design: Design, rng: Generator, image_size: ImageSize) -> tuple[Part, Shot]:
    """Lay a good part under the camera, with the variation that good parts show."""
    rows, columns = height_width(image_size)
    shape = rows * SUPERSAMPLING, columns * SUPERSAMPLING
    x, y = picture_grid(shape)
    u, v = _part_coordinates(rng, x, y)
    grain = smooth_noise(rng, shape, 0.007)
    depth = -design.shape.distance(u, v)
    rise = np.clip(depth / design.shape.bevel, 0, 1)
    rounding = _FLATNESS * design.shape.bevel * np.sqrt(rise * (2 - rise))
    part = Part(
        depth=depth,
        height=rounding + _ROUGHNESS[design.finish.texture] * grain,
        albedo=_albedo(design, rng, u, v, grain),
        ink=_ink(design, u, v),
    )

    ground, frequency = design.ground, math.pi * design.ground.ribs
    ribs = 0.03 * (np.cos(frequency * y[:, :1]) - np.cos(frequency * x[:1]))
    azimuth, elevation = math.radians(rng.uniform(-130, -120)), math.radians(52)
    level = math.cos(elevation)
    x, y = picture_grid((rows, columns))
    shot = Shot(
        ink=as_image(design.finish.ink),
        gloss=design.finish.gloss,
        ground=as_image(ground.colour) * (1 + ribs + 0.03 * grain),
        light=(level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)),
        lighting=rng.uniform(0.96, 1.04) + rng.uniform(-0.06, 0.06) * x + rng.uniform(-0.06, 0.06) * y,
        noise=_SENSOR_NOISE * rng.standard_normal((3, rows, columns), np.float32),
    )
    return part, shot


def photograph(part: Part, shot: Shot) -> NDArray[np.uint8]:
    """Light the part and take the picture: [H, W, 3] RGB."""
    pixel = 2 / min(part.depth.shape)
    slope_y, slope_x = np.gradient(part.height - _ENGRAVING * part.ink, pixel)
    light_x, light_y, light_z = shot.light
    towards_lamp = light_z - light_x * slope_x - light_y * slope_y
    steepness = np.sqrt(slope_x**2 + slope_y**2 + 1)
    diffuse = np.clip(towards_lamp / steepness, 0, None) / light_z
    mirror = np.clip((towards_lamp + 1) / (steepness * math.sqrt(2 * (light_z + 1))), 0, 1)

    body = blend(part.albedo, shot.ink, part.ink)
    body *= _AMBIENT + (1 - _AMBIENT) * diffuse
    body += shot.gloss * np.exp(24 * (mirror - 1))

    fall = round(0.04 / pixel)
    shadow = smoothstep(np.roll(part.depth, (fall, fall), axis=(0, 1)) + 0.05, 0.12)
    coverage = np.clip(part.depth / pixel + 0.5, 0, 1)
    scene = blend(shot.ground * (1 - 0.5 * shadow), body, coverage)
    exposed = _downsample(scene) * shot.lighting + shot.noise
    return np.clip(np.rint(exposed * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def picture_grid(shape: tuple[int, ...]) -> tuple[Field, Field]:
    """x and y [H, W] of the pixel centres, -1 to 1 along the shorter side."""
    short = min(shape)
    down, across = ((np.arange(side, dtype=np.float32) + 0.5) * (2 / short) - side / short for side in shape)
    x, y = np.meshgrid(across, down)
    return x, y


def as_image(colour: Colour) -> Field:
    """A colour as [3, 1, 1], to calculate with images."""
    return np.array(colour, np.float32).reshape(3, 1, 1)


def blend(below: Field, above: Field, opacity: Field) -> Field:
    """Lay an image, or a colour [3, 1, 1], over an image with an opacity [H, W]."""
    mixed = above - below
    mixed *= opacity  # in place: large new arrays cost more than the arithmetic
    mixed += below
    return mixed


def smoothstep(field: Field, softness: float) -> Field:
    """Rise from 0 to 1 over `softness`, both ends level."""
    ramp: Field = np.clip(field / softness, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def smooth_noise(rng: Generator, shape: tuple[int, ...], scale: float) -> Field:
    """Noise [H, W] of mean 0 and deviation about 1, its grains `scale` wide."""
    rows, columns = shape
    cells = [round(2 / scale * side / min(shape)) for side in shape]
    coarse = ndimage.gaussian_filter(rng.standard_normal(cells, np.float32), 1.0)
    noise = Image.fromarray(coarse / coarse.std())
    return np.asarray(noise.resize((columns, rows), Image.Resampling.BICUBIC))


def _part_coordinates(rng: Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """Where on the part each pixel falls, the part being turned, shifted and scaled a little."""
    angle, scale = math.radians(rng.uniform(-4, 4)), rng.uniform(0.985, 1.015)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    dx, dy = x - rng.uniform(-0.03, 0.03), y - rng.uniform(-0.03, 0.03)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _albedo(design: Design, rng: Generator, u: Field, v: Field, grain: Field) -> Field:
    """The body's colour [3, H, W] with its texture."""
    finish, side = design.finish, len(u)
    tone = 1 + 0.02 * grain
    if finish.texture == "brushed":
        turned = design.shape.print_radius > 0  # on a lathe: brushed in circles
        across = np.hypot(u, v) if turned else v + 0.01 * np.sin(3 * u)
        sheen = -2 * u * v / (across**2 + 1e-6) if turned else np.cos(5 * u + 1)
        streaks = ndimage.gaussian_filter1d(rng.standard_normal(side), 1.2)
        tone += 0.09 * np.interp(across, np.linspace(-1.5, 1.5, side), streaks).astype(np.float32)
        tone += 0.7 * finish.gloss * sheen
    albedo = as_image(finish.body) * tone
    if finish.texture == "speckled":
        speckles = smoothstep(smooth_noise(rng, u.shape, 0.014) - 1.9, 0.5)
        albedo = blend(albedo, as_image(finish.ink), 0.5 * speckles)
    return albedo


def _ink(design: Design, u: Field, v: Field) -> Field:
    """The print's opacity [H, W] at part coordinates."""
    (half_width, half_height), radius = design.shape.print_half, design.shape.print_radius
    if radius:
        u, v = np.arctan2(u, -v) * radius, radius - np.hypot(u, v)
    height, width = design.print_raster.shape
    raster_at = np.stack([(v / half_height + 1) * height / 2 - 0.5, (u / half_width + 1) * width / 2 - 0.5])
    return np.asarray(ndimage.map_coordinates(design.print_raster, raster_at, order=1))


def _downsample(image: Field) -> Field:
    """Average each 2 x 2 pixels of an image [3, H, W]."""
    rows = image[:, ::2] + image[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4

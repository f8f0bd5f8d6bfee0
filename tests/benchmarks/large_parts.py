"""Rendered parts of 5 megapixels with defects of 8 to 24 pixels: `python -m tests.benchmarks.large_parts data/big`.

They are those of `train data --dataset synthetic`, drawn once a pixel and not smaller: 60 good pictures to train on, 20
good and 30 defective ones to test on, with masks, in MVTec AD's layout. A picture takes some 5 seconds; one that is
there is not drawn again. `python -m train fit --category big --data data/big --image-size native` trains on them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks.results import run
from train.data.sources.synthetic import defects, rendering
from train.data.sources.synthetic.designs import design_part, generator
from train.data.sources.synthetic.rendering import Part

SIDE = 2240  # pixels
LENGTHS = (8, 24)  # pixels, of a defect's longest extent
KINDS = ("spot", "pit", "scratch")
SEEN_DIFFERENCE, LEAST_PIXELS, LEAST_CONTRAST = 8, 30, 20  # of a mask: levels of 255, pixels, mean level
COUNTS = {"train/good": 60, "test/good": 20, "test": 30}


def with_small_defect(part: Part, rng: Generator, kind: str) -> Part:
    """The part with a spot, a pit or a scratch somewhere on it."""
    pixel = 2 / len(part.depth)  # in the part's own unit, in which a picture is 2 wide
    length = rng.uniform(*LENGTHS) * pixel
    centre = defects._point_on(part, rng)
    if kind == "spot":
        stain = rendering.smoothstep(defects._blob(centre, length / 2, 0.35, part, rng), 2 * pixel)
        opacity = rng.uniform(0.5, 0.85) * stain
        colour = defects._contrast(part, 0.25, tint=(1.15, 1, 0.8))
        return replace(
            part, albedo=rendering.blend(part.albedo, colour, opacity), ink=part.ink * (1 - opacity)
        )
    if kind == "pit":
        radius = length / 2
        hollow = rendering.smoothstep(defects._blob(centre, radius, 0.08, part, rng), 0.7 * radius)
        darker = rendering.as_image((0.08, 0.11, 0.15)) * hollow
        return replace(
            part, height=part.height - rng.uniform(0.2, 0.35) * radius * hollow, albedo=part.albedo - darker
        )
    bend = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.3) * np.linspace(-1, 1, 12)
    steps = defects._directions(bend) * length / 12
    path = centre + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    groove = defects._stroke(part, [path], width=rng.uniform(2, 4) * pixel)
    strength = rng.uniform(0.45, 0.85) * groove
    return replace(
        part,
        height=part.height - 2 * pixel * groove,
        albedo=rendering.blend(part.albedo, defects._contrast(part, 0.35), strength),
        ink=part.ink * (1 - strength),
    )


def draw(name: str, kind: str | None, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture [H, W, 3] and where it differs from the good one [H, W]."""
    rng = generator(seed, name)
    part, shot = rendering.place_part(design_part("pill", seed), rng, SIDE)
    good = rendering.photograph(part, shot)
    marked = np.zeros(good.shape[:2], bool)
    while kind is not None:
        bad = rendering.photograph(with_small_defect(part, rng, kind), shot)
        levels = np.abs(bad.astype(np.int16) - good).max(axis=2)
        marked = levels >= SEEN_DIFFERENCE
        if marked.sum() >= LEAST_PIXELS and levels[marked].mean() >= LEAST_CONTRAST:
            return np.where(marked[..., None], bad, good), marked
    return good, marked


def main() -> None:
    """Draw what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder that takes train, test and ground_truth")
    parser.add_argument("--seed", type=int, default=0, help="of parts and defects")
    given = parser.parse_args()
    once_a_pixel = mock.patch.multiple(rendering, SUPERSAMPLING=1, _downsample=lambda image: image)
    with once_a_pixel:
        for folder, count in COUNTS.items():
            for number in range(count):
                kind = KINDS[number % len(KINDS)] if folder == "test" else None
                path = given.root / folder / (kind or "") / f"{number:03d}.png"
                if path.is_file():
                    continue
                picture, marked = draw(f"{folder}/{number}", kind, seed=given.seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind is not None:
                    mask_path = given.root / "ground_truth" / kind / f"{number:03d}_mask.png"
                    mask_path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(marked).save(mask_path)
                Image.fromarray(picture).save(path, compress_level=1)


if __name__ == "__main__":
    run(main)

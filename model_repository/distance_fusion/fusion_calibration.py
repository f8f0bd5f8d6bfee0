"""How distance maps become a verdict: what a release was calibrated to, read and checked, and the id of all of it.

Like `map_fusion` it runs in the server too, and imports numpy and `fusion_regions` beside it alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

if __package__:
    from model_repository.distance_fusion.fusion_regions import Regions as Regions
else:  # in the server, where the files lie side by side
    from fusion_regions import Regions  # type: ignore[import-not-found, no-redef]

# What judges, beside weights and calibration. A fusion of before has the first of them alone: others came at the end.
CODE_FILES = (
    "model.py",
    "map_fusion.py",
    "fusion_matrices.py",
    "fusion_calibration.py",
    "fusion_regions.py",
    "fusion_shown.py",
)
OF_EVERY_FUSION = CODE_FILES[:2]
LARGEST = float(np.finfo(np.float32).max)
LARGEST_SIDE = 2048  # pixels; sides and sigma bound the memory that a fusion matrix takes
NATIVE = -1  # in place of a size: images keep their own, see `model_repository.image_size`
# The numbers that a calibration may hold.
RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "release_id": (int, 0, 2**63 - 1),
    "weights_id": (int, 0, 2**63 - 1),
    "smoothing_sigma": (float, 0, 1024),
    "pool_size": (int, 1, 2048),
    "score_share": (float, 0, 1),
    "score_pixels": (int, 0, LARGEST_SIDE**2),
    "image_threshold": (float, -LARGEST, LARGEST),
    "pixel_threshold": (float, -LARGEST, LARGEST),
}


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the stages' distance maps become one anomaly map (Section 3.4).

    Attributes:
        image_size: side of a square anomaly map, or its height and width, in pixels; -1 of images that keep their own.
        smoothing_sigma: standard deviation of the Gaussian blur, in pixels.
        pool_size: side of the average pooling window, in pixels; odd.
        stage_weights: factor of each stage's distance map, at least 0.
    """

    image_size: int | tuple[int, int]
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an anomaly map; -1 each of images that keep their own size."""
        return sides_of(self.image_size)

    @property
    def is_native(self) -> bool:
        """Whether images keep their own size."""
        return self.image_size == NATIVE


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a release turns distance maps into verdicts; fitted on held-out good images.

    Attributes:
        release_id: weights, calibration and fusion code together, see `release_id_of`.
        category: the product, for messages.
        image_size, smoothing_sigma, pool_size, stage_weights: see `Fusion`.
        image_threshold: an image whose score exceeds it is judged anomalous.
        pixel_threshold: a pixel whose anomaly exceeds it belongs to the predicted mask.
        foreground: how the background was removed, `none`, `threshold` or `sam`; older releases lack it: not at all.
        foreground_id: which SAM did it, see `train.calibration.sam`; 0 for the other two.
        score_share: see `image_scores`; older releases lack it: the maximum.
        score_pixels: see `image_scores`; 0 where the share decides, and in older releases.
        weights_id: the weights it was fitted for, which the student's graph names; 0 in releases of before, whose
            graphs name the release itself.
        regions: where images are inspected; None for everywhere, and in older releases.
        picture_only: only what shows the picture counts, see `fusion_shown`; older releases lack it: what is filled up
            beside it counts too.
    """

    release_id: int
    category: str
    image_size: int | tuple[int, int]
    smoothing_sigma: float
    pool_size: int
    stage_weights: tuple[float, float, float]
    image_threshold: float
    pixel_threshold: float
    foreground: str = "none"
    foreground_id: int = 0
    score_share: float = 0.0
    weights_id: int = 0
    score_pixels: int = 0
    regions: Regions | None = None
    picture_only: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError that names each value no verdict can rest on: not finite, out of range or no number."""
        faults = [
            f"{name} {getattr(self, name)!r}, expected {least:.4g} to {most:.4g}"
            for name, (kind, least, most) in RANGES.items()
            if not is_number(getattr(self, name), least, most, kind=kind)
        ]
        sides = () if self.image_size == NATIVE else sides_of(self.image_size)
        if len(sides) not in (0, 2) or not all(is_number(side, 1, LARGEST_SIDE, kind=int) for side in sides):
            faults.insert(0, f"image_size {self.image_size!r}, expected 1 to {LARGEST_SIDE}")
        weights = self.stage_weights
        if len(weights) != 3 or not any(weights) or not all(is_number(w, 0, LARGEST) for w in weights):
            faults.append(f"stage_weights {list(weights)}, expected three of at least 0, one of them above")
        own = self.image_size == NATIVE or len(sides) != 2  # no size that they could be compared with
        if self.regions is not None and not own and self.regions.size != sides[::-1]:
            faults.append(f"regions of {self.regions.size} pixels, expected {sides[::-1]}")
        if not isinstance(self.picture_only, bool):
            faults.append(f"picture_only {self.picture_only!r}, expected true or false")
        if faults:
            raise ValueError(f"a calibration holds {'; '.join(faults)}")

    @property
    def fusion(self) -> Fusion:
        """The part of it that makes anomaly maps; the thresholds judge them."""
        return Fusion(**{field.name: getattr(self, field.name) for field in fields(Fusion)})

    def to_json(self) -> str:
        """The calibration as JSON text; what a fusion of before does not know is left out where it is 0 or none."""
        values = asdict(self)
        for name in ("score_share", "score_pixels", "weights_id", "regions", "picture_only"):
            if not values[name]:
                del values[name]
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is no JSON object, a field is missing or unknown, or a value cannot be used.
        """
        values: Any = json.loads(text)
        expected = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, dict) or not required <= values.keys() <= expected:
            given = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"a calibration has the fields {sorted(expected)}, found {given}")
        weights, size = values["stage_weights"], values["image_size"]
        values["stage_weights"] = tuple(weights) if isinstance(weights, list) else ()
        values["image_size"] = tuple(size) if isinstance(size, list) else size
        if values.get("regions") is not None:
            values["regions"] = Regions.from_values(values["regions"])
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration from a file; raises as `from_json`, or OSError."""
        return cls.from_json(path.read_text(encoding="utf-8"))


def release_id_of(calibration: Calibration, code_id: str) -> int:
    """The id of what judges an image: weights, calibration and fusion code. It is 63 bits of a SHA-256, never 0.

    Args:
        calibration: its `weights_id` names the weights; its `release_id` and `category` do not count.
        code_id: see `fusion_code_id`.
    """
    values = asdict(calibration)
    del values["release_id"], values["category"]
    for name in ("score_pixels", "regions", "picture_only"):  # ids of before there were any stay as they were
        if not values[name]:
            del values[name]
    judging = {
        name: float(value) if RANGES.get(name, (int,))[0] is float else value
        for name, value in values.items()
    }
    judging |= {
        "stage_weights": [float(weight) for weight in calibration.stage_weights],
        "fusion_code": code_id,
    }
    digest = hashlib.sha256(json.dumps(judging, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def fusion_code_id(folder: Path = Path(__file__).parent) -> str:
    """SHA-256 over the code that fuses, as it lies in a published version or in the project, where model.py is in 1/.

    Raises:
        OSError: a file is missing.
    """
    digest = hashlib.sha256()
    for name in CODE_FILES:
        path = folder / name if (folder / name).is_file() else folder / "1" / name
        if name in OF_EVERY_FUSION or path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def sides_of(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size in pixels; one number is a square."""
    return image_size if isinstance(image_size, tuple) else (image_size, image_size)


def is_number(value: Any, least: float, most: float, *, kind: type[int] | type[float] = float) -> bool:
    """Whether it is a number within these bounds, where NaN never is; `kind` int takes whole numbers alone."""
    return isinstance(value, (kind, int)) and not isinstance(value, bool) and bool(least <= value <= most)

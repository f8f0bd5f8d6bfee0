"""What a checkpoint remembers of known defects: which they were, and what they chose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from train.config import FitConfig
from train.support.files import readable_text

if TYPE_CHECKING:  # the engine builder reads manifests without numpy
    from train.data.known_defects import KnownDefects


def _path_text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else readable_text(path)


PathText = Annotated[str, BeforeValidator(_path_text)]
FIGURES_FILE = "known_defects.json"  # beside the checkpoint: what they changed
Emphasis = tuple[float, float, float]


class FusionSetting(BaseModel):
    """How distance maps become scores: what known defects choose among, for networks that stay as they are.

    Attributes:
        stage_weighting: see `FitConfig.stage_weighting`.
        emphasis: factors of the three stages' weights that this gives.
        smoothing_sigma: of the anomaly map's blur, pixels.
        foreground: how the background is removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage_weighting: Literal["equal", "good_maximum", "pasted_defects"]
    emphasis: Emphasis = (1.0, 1.0, 1.0)
    smoothing_sigma: float
    foreground: Literal["none", "threshold", "sam"]

    @classmethod
    def of(cls, config: FitConfig) -> FusionSetting:
        """That of a configuration."""
        return cls(
            stage_weighting=config.stage_weighting,
            smoothing_sigma=config.smoothing_sigma,
            foreground=config.foreground,
        )

    def applied_to(self, config: FitConfig) -> FitConfig:
        """A configuration with this setting; the emphasis is no field of it."""
        return config.model_copy(update=self.model_dump(exclude={"emphasis"}))


class KnownDefectsOrigin(BaseModel):
    """Which known defects: where their folder lies, and which files they are.

    Attributes:
        root: the folder as it was given.
        path: the same from the root of the file system.
        fingerprint: of the images and masks, see `train.data.category.fingerprint`.
        n_images: how many images there are, those that cannot be read included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: PathText
    path: PathText
    fingerprint: str
    n_images: int

    @classmethod
    def of(cls, known: KnownDefects) -> KnownDefectsOrigin:
        """That of a folder's images, all of which are read."""
        return cls(
            root=str(known.root),
            path=str(known.root.absolute()),
            fingerprint=known.fingerprint(),
            n_images=len(known.images),
        )

    def folder(self) -> Path | None:
        """The folder where it lay, or by the name given if the project moved as a whole; None if it is gone."""
        return next((place for place in (Path(self.path), Path(self.root)) if place.is_dir()), None)


class ChosenByKnownDefects(BaseModel):
    """What known defects chose for a checkpoint.

    Attributes:
        origin: the known defects.
        asked: the setting that the run was asked for with, in place of the one that its configuration has now.
        chosen: the setting that its configuration has now.
        figures_sha256: of the file known_defects.json beside the checkpoint, which says what that changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: KnownDefectsOrigin
    asked: FusionSetting
    chosen: FusionSetting
    figures_sha256: str

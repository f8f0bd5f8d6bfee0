"""What known defects changed, in figures: the content of known_defects.json, and a part of metrics.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from model_repository.image_size import ImageSize
from train.checkpoint.known_defects import FusionSetting

FORMAT = 1  # of known_defects.json


@dataclass(frozen=True)
class Standing:
    """What a calibration makes of the known defects and of the held-out good images.

    Attributes:
        setting: how distance maps become scores.
        stage_weights: by it.
        image_threshold, pixel_threshold: set by good images alone.
        auroc: the known defects' scores against those of the good images, 0..1.
        n_escapes: known defects that are judged good.
        mask_marked: mean share of a mask's pixels that are marked, over the defects with masks; None without any.
        n_false_rejects: held-out good images that are rejected, each by the threshold of the others.
    """

    setting: FusionSetting
    stage_weights: tuple[float, float, float]
    image_threshold: float
    pixel_threshold: float
    auroc: float
    n_escapes: int
    mask_marked: float | None
    n_false_rejects: int


@dataclass(frozen=True)
class DefectVerdict:
    """A known defect's verdict.

    Attributes:
        score, threshold: it escapes where the score does not exceed the threshold.
        mask_marked: share of its mask's pixels that are marked; None without a mask.
    """

    score: float
    threshold: float
    mask_marked: float | None

    @property
    def escapes(self) -> bool:
        """Whether it is judged good."""
        return not self.score > self.threshold


@dataclass(frozen=True)
class JudgedDefect:
    """A known defect before and after the choice.

    Attributes:
        file: in the folder of known defects.
        kind: its folder's name, `known` of a defect that lies straight in the folder.
        sha256: of the file, in hexadecimal.
        before: by the present setting, in which no defect had a say.
        after: by what the other known defects chose.
    """

    file: str
    kind: str
    sha256: str
    before: DefectVerdict
    after: DefectVerdict


@dataclass(frozen=True)
class Figures:
    """What known defects changed.

    Attributes:
        n_good: held-out good images.
        image_size: of the networks, pixels, so that runs of several sizes can be set side by side.
        false_reject_rate: that is promised.
        n_settings: how many were tried.
        changed: whether another setting than the present one was chosen.
        why: one sentence.
        n_groups: in how many groups the defects were left out: as many as there are defects, but for a crowd.
        n_agree: in how many of them the rest chose the same setting.
        before: by the present setting.
        after: by the chosen one; its measures of defects are leave-one-out, each by what the others chose.
        in_sample: the same, each defect having had a say: it flatters.
        defects: each of them.
    """

    n_good: int
    image_size: ImageSize
    false_reject_rate: float
    n_settings: int
    changed: bool
    why: str
    n_groups: int
    n_agree: int
    before: Standing
    after: Standing
    in_sample: Standing
    defects: tuple[JudgedDefect, ...]

    def content(self) -> dict[str, Any]:
        """As JSON holds it."""
        values = {"format": FORMAT, **asdict(self)}
        for name in ("before", "after", "in_sample"):
            values[name]["setting"] = getattr(self, name).setting.model_dump()
        for entry, defect in zip(values["defects"], self.defects, strict=True):
            for name in ("before", "after"):
                entry[name]["escapes"] = getattr(defect, name).escapes
        return values

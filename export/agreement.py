"""How far a build may judge from PyTorch (`Limits`), and how far one was measured to (`Agreement`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from export.errors import ExportError

TEST_IMAGES, TRAINING_IMAGES, GOOD_IMAGES = "test images", "training images", "good images"


class Limits(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The largest differences between a judge and PyTorch that are accepted; None is no limit.

    Attributes:
        map_difference: largest difference at any position of any anomaly map, as a share of the image threshold where
            that is above 1.
        auroc_loss: loss of image AUROC.
        pro_loss: loss of per-region overlap.
        flips: share of images whose label differs.
        false_reject_change: change of the share of good images that are rejected, in either direction.
    """

    map_difference: float | None = Field(None, ge=0)
    auroc_loss: float = Field(ge=0)
    pro_loss: float = Field(ge=0)
    flips: float = Field(ge=0, le=1)
    false_reject_change: float = Field(ge=0, le=1)


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(map_difference=1e-4, auroc_loss=1e-4, pro_loss=1e-4, flips=0, false_reject_change=0),
    "fp16": Limits(auroc_loss=0.0005, pro_loss=0.0005, flips=0.002, false_reject_change=0.01),
    "int8": Limits(auroc_loss=0.005, pro_loss=0.005, flips=0.01, false_reject_change=0.02),
}


def read_limits(path: Path | None) -> Mapping[str, Limits]:
    """`LIMITS`, changed by a TOML file with a table for each precision and the keys of `Limits`.

    Args:
        path: the file; None changes nothing.

    Raises:
        ExportError: the file cannot be read as TOML, or a precision, key or value in it is unknown.
    """
    if path is None:
        return LIMITS
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ExportError(
            f"{path} cannot be read as TOML ({error}); expected a table a precision, [int8] with flips = 0.01 say."
        ) from None
    if unknown := sorted(set(tables) - set(LIMITS)):
        raise ExportError(f"{path} has a table {unknown[0]!r}; expected those of {', '.join(LIMITS)}.")
    limits, faults = dict(LIMITS), []
    for precision, table in tables.items():
        try:
            limits[precision] = Limits.model_validate({**LIMITS[precision].model_dump(), **table})
        except TypeError:
            faults.append(f"{precision} is no table")
        except ValidationError as error:
            faults += [f"{precision}.{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
    if faults:
        raise ExportError(
            f"{path} sets limits wrongly ({'; '.join(faults)}); expected {', '.join(Limits.model_fields)} as numbers."
        )
    return limits


class Agreement(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A judge compared with PyTorch on a test set.

    A change is the judge's value minus PyTorch's. A value is None where the test set does not allow it to be computed,
    or the judge could not judge every image.

    Attributes:
        judge: what judged: ONNX graphs, TensorRT engines or a live ensemble.
        flips: labels that differ; an image that the judge could not judge counts as one.
        judged_on: what the images are; `TEST_IMAGES` where there is a test set. None in manifests of before this field.
        beyond_limits: a sentence for each limit that is exceeded.
        files: SHA-256 of the graphs or engines that it judged with, by file.
    """

    judge: str
    precision: str
    n_images: int
    max_map_difference: float | None = None
    mean_map_difference: float | None = None
    max_score_difference: float | None = None
    mean_score_difference: float | None = None
    image_auroc: float | None = None
    auroc_change: float | None = None
    pro_change: float | None = None
    flips: int
    false_reject_rate: float | None = None
    false_reject_change: float | None = None
    beyond_limits: list[str]
    judged_on: str | None = None
    files: dict[str, str] = {}

    @property
    def accepted(self) -> bool:
        """Whether no limit is exceeded."""
        return not self.beyond_limits

    @property
    def caveat(self) -> str | None:
        """What the comparison does not show, a sentence; None where the images are a test set."""
        if self.judged_on in (None, TEST_IMAGES):
            return None
        int8_saw_them = self.precision == "int8" and self.judged_on == TRAINING_IMAGES
        calibrated = ", most of which int8 was calibrated on" if int8_saw_them else ""
        return (
            f"{self.judge} was judged on {self.n_images} {self.judged_on}{calibrated}: how it judges "
            "other images, and defects, is not shown; give a folder with a test set with --images"
        )


def beyond(reached: Mapping[str, float | None], limits: Limits) -> list[str]:
    """A sentence for each limit that is exceeded; NaN exceeds every limit."""
    sentences = []
    for name, value in reached.items():
        limit = getattr(limits, name)
        if limit is not None and value is not None and not value <= limit:
            sentences.append(f"{name.replace('_', ' ')} {value:.2g}, at most {limit:g} allowed")
    return sentences

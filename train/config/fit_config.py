"""The configuration of a training run: its fields, their ranges and what goes together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from model_repository.image_size import NATIVE, height_width
from train.config.regions import DrawnRegions
from train.config.seen_pictures import SeenPictures

LARGEST_SEED = 2**63 - 1  # that torch and numpy both take
MOST_STEPS = 10_000_000  # weeks of training
LARGEST_BATCH = 100_000
Strength = Annotated[float, Field(ge=0, le=16)]


class FitConfig(SeenPictures):
    """All choices of a run. The defaults are the paper's (Section 4.1); each field states its unit and range."""

    mask_ratio: float = Field(0.5, ge=0, lt=1, description="Share of feature positions hidden (Algorithm 1)")
    generation_stages: tuple[int, ...] = Field(
        (1, 2, 3),
        description="Stages with a generation block (Table 8); the others compare the student's own features",
    )
    generation_width: float = Field(
        1.0,
        gt=0,
        le=4,
        description="Channels between a block's two convolutions, as a share of the teacher's",
    )
    centered_stages: tuple[int, ...] = Field(
        (),
        description="Stages whose features are compared minus the teacher's mean over good images; the paper's: none",
    )
    cosine_weight: float = Field(1.0, ge=0, le=1000, description="Weight of the cosine distance (Eq. 1)")
    alpha: float = Field(1.0, ge=0, le=1000, description="Weight of the L2 distance (Eq. 5)")
    distance: Literal["cosine", "mahalanobis"] = Field(
        "cosine",
        description="How features are compared: by direction (Eq. 1 to 5), or by how unusual their difference is at "
        "its place, for teachers of few channels",
    )
    neighbourhoods: tuple[int, int, int] = Field(
        (1, 1, 1),
        description="Side of the square of positions that differences are averaged over at stages 1, 2 and 3, for "
        "the distance mahalanobis; odd",
    )
    common_factors: int = Field(
        0,
        ge=0,
        le=256,
        description="Of what all places of a picture have in common, the main components that are subtracted before a "
        "place is judged, for the distance mahalanobis at one size; at most one for ten training images",
    )
    sharpening: tuple[Strength, ...] = Field(
        (0.0,),
        min_length=1,
        max_length=8,
        description="How far fine detail is raised in what the teacher sees, 0 for not at all; of several strengths, "
        "the one with which good images with pasted patches stand out most, for the distance mahalanobis",
    )
    batch_size: int = Field(32, ge=1, le=LARGEST_BATCH, description="Images a step")
    drop_last: bool = Field(False, description="Leave out an epoch's last batch where it is smaller")
    epochs: int | None = Field(200, ge=1, le=MOST_STEPS, description="Passes over the training images")
    steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, validate_default=True, description="Optimiser steps, in place of epochs"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's step size")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's decay rates")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Learning rate over the steps")
    freeze_batchnorm: bool = Field(False, description="Keep the student's pretrained BatchNorm statistics")
    mixed_precision: Literal["auto", "off", "bfloat16", "float16"] = Field(
        "auto",
        description="Of the student's layers; auto: what the GPU is good at, off on a CPU and for edge's student",
    )
    compile: bool = Field(
        False, description="torch.compile the student: a minute at the start, faster steps after"
    )
    validation_interval: int = Field(
        100, ge=0, le=MOST_STEPS, description="Steps between looks at held-out good images, 0 for none"
    )
    plateau_patience: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Stop after so many validations without a lower loss"
    )
    smoothing_sigma: float = Field(4.0, ge=0, description="Gaussian blur of the anomaly map, pixels")
    pool_size: int = Field(5, ge=1, le=2049, description="Average pooling window, pixels, odd")
    score_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the anomaly map's pixels, the highest, whose mean is the score; 0: their maximum; with "
        "--image-size native a share of a crop's pixels",
    )
    stage_weighting: Literal["equal", "good_maximum", "pasted_defects"] = Field(
        "equal",
        description="Sum the stages as they are, each over its usual maximum on held-out good images, or that "
        "times how well it tells good images with a pasted patch from good ones",
    )
    foreground: Literal["none", "threshold", "sam"] = Field(
        "none", description="How the background is removed from the anomaly map (Section 4.4, Table 9)"
    )
    regions: DrawnRegions | None = Field(
        None, description="Where pictures are inspected and what is ignored there, as drawn on one of them"
    )
    holdout_ratio: float = Field(0.15, gt=0, lt=1, description="Share of good images kept for calibration")
    false_reject_rate: float = Field(0.01, ge=1e-6, le=0.5, description="Share of good images it may reject")
    pixel_false_positive_rate: float = Field(
        0.01, ge=1e-6, le=0.5, description="Share of a good part's pixels that may be marked"
    )
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="Of the split, the order, the masks and the blocks"
    )

    @model_serializer(mode="wrap")
    def _as_before_there_was_a_choice(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Headers, records and ids of a run that asks for nothing new stay as they were."""
        values: dict[str, Any] = serialize(self)
        if self.aspect == "auto":
            values.pop("aspect", None)
        if not self.is_native:
            values.pop("crop_size", None)
        if self.regions is None:
            values.pop("regions", None)
        if self.align == "off":
            values.pop("align", None)
        if self.common_factors == 0:
            values.pop("common_factors", None)
        return values

    # On fields, not on the model: pydantic runs a model's validator only when no field is at fault.
    @field_validator("steps")
    @classmethod
    def _either_epochs_or_steps(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data and (info.data["epochs"] is None) == (steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        return steps

    @field_validator("generation_stages", "centered_stages")
    @classmethod
    def _some_of_three_stages(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if set(stages) - {1, 2, 3} or len(set(stages)) < len(stages):
            raise ValueError("expected some of 1, 2 and 3")
        return tuple(sorted(stages))

    @field_validator("betas")
    @classmethod
    def _rates(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("expected two numbers of at least 0 and below 1")
        return betas

    @field_validator("alpha")
    @classmethod
    def _some_distance(cls, alpha: float, info: ValidationInfo) -> float:
        if alpha == 0 and info.data.get("cosine_weight") == 0:
            raise ValueError("alpha and cosine_weight are both 0; expected one above 0")
        return alpha

    @field_validator("distance")
    @classmethod
    def _of_its_own_kind(cls, distance: str, info: ValidationInfo) -> str:
        defaults = {"centered_stages": (), "cosine_weight": 1.0, "alpha": 1.0}
        given = [name for name, value in defaults.items() if info.data.get(name, value) != value]
        if distance == "mahalanobis" and given:
            raise ValueError(
                f"goes without {' and '.join(given)}, which the distance cosine has; expected cosine"
            )
        return distance

    @field_validator("neighbourhoods")
    @classmethod
    def _squares_around_a_position(cls, sides: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if any(side < 1 or side % 2 == 0 for side in sides):
            raise ValueError("expected three odd numbers")
        if info.data.get("distance") == "cosine" and sides != (1, 1, 1):
            raise ValueError("the distance cosine compares single positions; expected 1,1,1")
        return sides

    @field_validator("common_factors")
    @classmethod
    def _of_residuals(cls, count: int, info: ValidationInfo) -> int:
        if count and info.data.get("distance") == "cosine":
            raise ValueError("the distance cosine has none; expected 0")
        if count and info.data.get("image_size") == NATIVE:
            raise ValueError("pictures at their own size have no places in common; expected 0")
        return count

    @field_validator("sharpening")
    @classmethod
    def _several_to_choose_from(cls, strengths: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if len(strengths) > 1 and info.data.get("distance") == "cosine":
            raise ValueError("the distance cosine takes one strength; expected a single number")
        return strengths

    @field_validator("plateau_patience")
    @classmethod
    def _something_to_watch(cls, patience: int | None, info: ValidationInfo) -> int | None:
        if patience is not None and info.data.get("validation_interval") == 0:
            raise ValueError("nothing is validated; expected a validation_interval above 0")
        return patience

    @field_validator("freeze_batchnorm")
    @classmethod
    def _statistics_to_keep(cls, freeze: bool, info: ValidationInfo) -> bool:
        if freeze and info.data.get("student_weights") == "scratch":
            raise ValueError("a student from scratch has no statistics to keep; expected false")
        return freeze

    @field_validator("smoothing_sigma")
    @classmethod
    def _within_the_image(cls, sigma: float, info: ValidationInfo) -> float:
        # A wider blur leaves one value for the whole map, and its matrix takes the memory of the machine.
        bound = "crop_size" if info.data.get("image_size") == NATIVE else "image_size"
        size = info.data.get(bound)
        if size is not None and sigma > min(height_width(size)) / 2:
            raise ValueError(f"expected at most half the {bound}")
        return sigma

    @field_validator("regions")
    @classmethod
    def _where_parts_lie_alike(
        cls, regions: DrawnRegions | None, info: ValidationInfo
    ) -> DrawnRegions | None:
        if regions is not None and info.data.get("align", "off") == "auto":
            raise ValueError(
                "are drawn on a picture as it comes where align is off, and on the reference picture where it is on; "
                "expected one of these in place of auto"
            )
        return regions

    @field_validator("foreground")
    @classmethod
    def _of_a_size_that_sam_takes(cls, method: str, info: ValidationInfo) -> str:
        if method == "sam" and info.data.get("image_size") == NATIVE:
            raise ValueError(
                "SAM takes pictures of one size; expected threshold or none where each keeps its own"
            )
        return method

    @field_validator("pool_size")
    @classmethod
    def _odd(cls, pool_size: int) -> int:
        if pool_size % 2 == 0:
            raise ValueError("expected an odd number")
        return pool_size

    @property
    def score_pixels(self) -> int:
        """How many of the map's highest pixels make the score of pictures at their own size; 0 where a share does."""
        return max(1, round(self.score_share * self.crop_size**2)) if self.is_native else 0

    @property
    def can_sharpen(self) -> bool:
        """Whether the teacher's graph has the filter that `sharpening` sets."""
        return any(self.sharpening)

    @property
    def distance_scale(self) -> float:
        """Factor of 1 - cos in a distance map: cosine and L2 distance of unit vectors are equal (Eq. 1, 3, 5)."""
        return self.cosine_weight + self.alpha

    def total_steps(self, n_images: int) -> int:
        """Optimiser steps for this many training images."""
        if self.steps is not None:
            return self.steps
        whole, rest = divmod(n_images, self.batch_size)
        return (self.epochs or 0) * max(1, whole if self.drop_last else whole + (rest > 0))

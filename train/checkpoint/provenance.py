"""Where a checkpoint came from: data, weights, training and libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from train.checkpoint.known_defects import ChosenByKnownDefects, PathText
from train.support.files import readable_text

if TYPE_CHECKING:  # the engine builder reads manifests without numpy
    from train.data.category import CategoryData


class DataOrigin(BaseModel):
    """Which images: their data set, where they lie, and which they are.

    Attributes:
        dataset: `mvtec_ad`, `elpv`, `synthetic` or `folder`.
        category: the product's name.
        synthetic: whether they were rendered.
        data_root: their folder, as it was given.
        data_path: the same from the root of the file system; older checkpoints do not say.
        data_fingerprint: of the images to train on, see `CategoryData.fingerprint`.
        n_images: how many of them there are, those that cannot be read included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    category: str
    synthetic: bool
    data_root: PathText
    data_path: PathText | None
    data_fingerprint: str
    n_images: int

    @classmethod
    def of(cls, data: CategoryData) -> DataOrigin:
        """That of a category's images, all of which are read."""
        return cls(
            dataset=data.dataset,
            category=data.category,
            synthetic=data.synthetic,
            data_root=str(data.root),
            data_path=str(data.root.absolute()),
            data_fingerprint=data.fingerprint(),
            n_images=len(data.train_good),
        )

    def folder(self) -> Path | None:
        """The folder where it lay, or by the name given if the project moved as a whole; None if it is gone."""
        given = Path(self.data_root)
        recorded = given.absolute() if self.data_path is None else Path(self.data_path)
        if recorded.is_dir():
            return given if given.absolute() == recorded else recorded
        return given if given.is_dir() else None


class Spread(BaseModel):
    """How values of good images lie: the least, the 5 % point, the median, the 95 % point and the highest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least: float
    low: float
    median: float
    high: float
    most: float


class UsualScores(BaseModel):
    """What held-out good images give, so that a single image can be set beside them.

    Attributes:
        n_images: how many there were.
        score: of their scores.
        stages: of what each stage contributes to them; an image's three contributions sum to its score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_images: int
    score: Spread
    stages: tuple[Spread, Spread, Spread]


class Provenance(BaseModel):
    """Where a checkpoint came from; written into its header and into every manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    category: str
    dataset: str
    data_root: PathText
    data_path: PathText | None = None  # from the root of the file system; older checkpoints do not say
    data_fingerprint: str
    synthetic: bool
    n_train: int
    n_held_out: int
    n_broken: int
    bit_depth: int = 8  # older checkpoints do not say
    aspect: Literal["stretch", "keep"] = (
        "stretch"  # older checkpoints do not say, and neither do those that stretch
    )
    aligned: bool = False  # older checkpoints do not say, and neither do those that are not
    sharpening: float = 0.0  # of what the teacher sees; older checkpoints had none
    weights: dict[str, str]
    steps: int | None = None  # older checkpoints do not say
    seconds_train: float
    final_loss: float
    usual_scores: UsualScores | None = None  # older checkpoints do not say
    versions: dict[str, str]
    created: str
    # Left out where there are none: the file is then the one that a run without known defects has.
    known_defects: ChosenByKnownDefects | None = Field(None, exclude_if=lambda value: value is None)

    @field_validator("weights", mode="before")
    @classmethod
    def _readable(cls, weights: dict[str, str]) -> dict[str, str]:
        return {name: readable_text(source) for name, source in weights.items()}

    @model_serializer(mode="wrap")
    def _as_before_there_was_a_choice(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.aspect == "stretch":
            values.pop("aspect", None)
        if not self.aligned:
            values.pop("aligned", None)
        return values

    @property
    def keep_aspect(self) -> bool:
        """Whether pictures keep their shape where they are resized, see `train.data.shapes`."""
        return self.aspect == "keep"

    @property
    def origin(self) -> DataOrigin:
        """The images that it was trained on."""
        same = self.model_dump(include=set(DataOrigin.model_fields))
        return DataOrigin(n_images=self.n_train + self.n_held_out + self.n_broken, **same)

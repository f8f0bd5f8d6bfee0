"""Which networks see which pictures: the first fields of a training run's configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from model_repository.image_size import NATIVE, ImageSize, parse_size


class SeenPictures(BaseModel):
    """Networks, and what becomes of pictures before they see them; see `FitConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = "paper"
    teacher: str = Field("wide_resnet50_2", description="timm name of the frozen teacher")
    student: str = Field("resnext50_32x4d", description="timm name of the student")
    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description="Of both backbones; random is for tests and timings"
    )
    student_weights: Literal["pretrained", "scratch"] = Field(
        "pretrained", description="The student's start (Table 7)"
    )
    image_size: ImageSize = Field(
        256,
        description="Side of the square that networks see, or HEIGHTxWIDTH; pixels, multiples of 32; native: each "
        "picture's own; of fit also auto, which proposes one and says why",
    )
    crop_size: int = Field(
        256,
        ge=64,
        le=1024,
        multiple_of=32,
        description="With --image-size native: side of the square crops that are trained on, pixels; also what "
        "score_share is a share of",
    )
    aspect: Literal["auto", "stretch", "keep"] = Field(
        "auto",
        description="Stretch pictures onto that size, or keep their shape and fill the rest with their edge; auto: "
        "keep where good images differ in shape",
    )
    align: Literal["off", "auto", "on"] = Field(
        "off",
        description="Shift and turn each picture so that its part lies as in a reference picture made of good ones; "
        "auto: where patches pasted into held-out good images stand out more then",
    )
    bit_depth: int | None = Field(
        None,
        ge=1,
        le=32,
        description="Bits a channel of images with more than 8; 1: floating-point from 0 to 1; else found from them",
    )

    @field_validator("image_size", mode="before")
    @classmethod
    def _a_size_that_networks_take(cls, size: Any) -> ImageSize:
        return parse_size(size)

    @field_validator("align")
    @classmethod
    def _pictures_of_one_size(cls, align: str, info: ValidationInfo) -> str:
        if align != "off" and info.data.get("image_size") == NATIVE:
            raise ValueError("goes with one image_size; expected off where each picture keeps its own")
        return align

    @field_validator("bit_depth")
    @classmethod
    def _whole_bytes_or_more(cls, bit_depth: int | None) -> int | None:
        if bit_depth is not None and 1 < bit_depth < 8:
            raise ValueError("expected 1, or 8 to 32")
        return bit_depth

    @property
    def is_native(self) -> bool:
        """Whether pictures keep their own size; crops of them are trained on then."""
        return self.image_size == NATIVE

    @property
    def training_size(self) -> ImageSize:
        """The size of what is trained on: of images, or of crops."""
        return self.crop_size if self.is_native else self.image_size

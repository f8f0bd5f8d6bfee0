"""What a server says of a category: its ensemble's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from client.core.errors import NotServed
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS
from model_repository.image_size import NATIVE, ImageSize, image_size

ENCODED = "_encoded"  # ends the name of the ensemble that takes image files
CHANNELS = 3


@dataclass(frozen=True)
class Category:
    """What a category's ensemble says of itself.

    Attributes:
        image_size: that its networks see images at: the side of a square, or height and width, pixels; -1 where each
            image keeps its own.
        max_batch: images that one request may hold.
        synthetic: it was trained on rendered images.
        precision: of its graphs.
        preset: that it was trained with.
        bit_depth: white of images with more than 8 bits a channel is 2**bit_depth - 1.
        release_id: which weights judge.
        keep_aspect: images keep their shape where they are resized, and what is left beside them is filled.
        max_pixels: of an image that keeps its own size, filled up to multiples of 32; 0 for any.
    """

    image_size: ImageSize
    max_batch: int
    synthetic: bool
    precision: str
    preset: str
    bit_depth: int
    release_id: int
    keep_aspect: bool = False
    max_pixels: int = 0

    @property
    def is_native(self) -> bool:
        """Whether images keep their own size."""
        return self.image_size == NATIVE

    def resizes_as(self, other: Category) -> bool:
        """Whether images go to its networks as to those of another.

        Networks that see images at their own size take them shrunk for others too, and do not notice.
        """
        return (self.image_size, self.keep_aspect) == (other.image_size, other.keep_aspect)


def read_category(config: Any, name: str, *, url: str) -> Category:
    """A category by the configuration of its ensemble.

    Raises:
        NotServed: the model of that name is no category.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    expected = (
        "expected an ensemble published by `python -m export publish`, which takes image and gives a verdict"
    )
    if "image" not in shapes or not set(VERDICT_OUTPUTS) <= outputs:
        raise NotServed(
            f"Model {name!r} at {url} takes {', '.join(sorted(shapes))} and gives {', '.join(sorted(outputs))}; "
            f"{expected}."
        )
    dims = [int(side) for side in shapes["image"]]
    has_size = min(dims[:2], default=0) >= 1 or dims[:2] == [NATIVE, NATIVE]
    if len(dims) != 3 or not has_size or dims[2] != CHANNELS or config.max_batch_size < 1:
        raise NotServed(
            f"Model {name!r} at {url} takes images {shapes['image']} in batches of up to {config.max_batch_size}; "
            f"{expected}."
        )
    parameters = {key: str(value.string_value) for key, value in config.parameters.items()}
    release, bit_depth = parameters.get("release_id", "0"), parameters.get("bit_depth", "8")
    max_pixels = parameters.get("max_pixels", "0")
    if not (release.isdecimal() and bit_depth.isdecimal() and max_pixels.isdecimal()):
        raise NotServed(
            f"Model {name!r} at {url} names release {release!r} and a bit depth of {bit_depth!r}; {expected}."
        )
    return Category(
        image_size=image_size(*dims[:2]),
        max_batch=int(config.max_batch_size),
        synthetic=parameters.get("synthetic") == "true",
        precision=parameters.get("precision", "fp32"),
        preset=parameters.get("preset", ""),
        bit_depth=int(bit_depth),
        release_id=int(release),
        keep_aspect=parameters.get("aspect") == "keep",
        max_pixels=int(max_pixels),
    )


def served_categories(index: Iterable[Any] | None) -> str:
    """For messages: the categories that a server serves, by its index of models; None where it does not say."""
    if index is None:
        return "what it serves, it says only with a key (--key-file)"
    ready = {model.name for model in index if model.state == "READY"}
    served = sorted(model for model in ready if model + ENCODED in ready)
    return f"it serves {', '.join(served) or 'none'}"

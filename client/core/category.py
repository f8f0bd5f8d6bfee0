"""What a server says of a category: its ensemble's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from client.core.errors import NotServed
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS

ENCODED = "_encoded"  # ends the name of the ensemble that takes image files
CHANNELS = 3


@dataclass(frozen=True)
class Category:
    """What a category's ensemble says of itself.

    Attributes:
        image_size: side of the square image that its networks see, pixels.
        max_batch: images that one request may hold.
        synthetic: it was trained on rendered images.
        precision: of its graphs.
        preset: that it was trained with.
        bit_depth: white of images with more than 8 bits a channel is 2**bit_depth - 1.
        release_id: which weights judge.
    """

    image_size: int
    max_batch: int
    synthetic: bool
    precision: str
    preset: str
    bit_depth: int
    release_id: int


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
    size = int(shapes["image"][0]) if shapes["image"] else 0
    if size < 1 or shapes["image"] != [size, size, CHANNELS] or config.max_batch_size < 1:
        raise NotServed(
            f"Model {name!r} at {url} takes images {shapes['image']} in batches of up to {config.max_batch_size}; "
            f"{expected}."
        )
    parameters = {key: str(value.string_value) for key, value in config.parameters.items()}
    release, bit_depth = parameters.get("release_id", "0"), parameters.get("bit_depth", "8")
    if not (release.isdecimal() and bit_depth.isdecimal()):
        raise NotServed(
            f"Model {name!r} at {url} names release {release!r} and a bit depth of {bit_depth!r}; {expected}."
        )
    return Category(
        image_size=size,
        max_batch=int(config.max_batch_size),
        synthetic=parameters.get("synthetic") == "true",
        precision=parameters.get("precision", "fp32"),
        preset=parameters.get("preset", ""),
        bit_depth=int(bit_depth),
        release_id=int(release),
    )


def served_categories(index: Iterable[Any] | None) -> str:
    """For messages: the categories that a server serves, by its index of models; None where it does not say."""
    if index is None:
        return "what it serves, it says only with a key (--key-file)"
    ready = {model.name for model in index if model.state == "READY"}
    served = sorted(model for model in ready if model + ENCODED in ready)
    return f"it serves {', '.join(served) or 'none'}"

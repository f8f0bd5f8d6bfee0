"""A category on a server: looked up by its ensemble's configuration, and loaded where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.judging.errors import NotAllowed, NotServed
from client.judging.faults import fault_of
from model_repository.distance_fusion.map_fusion import VERDICT_OUTPUTS

ENCODED = "_encoded"  # ends the name of the ensemble that takes image files
LOAD_TIMEOUT_S = 60.0  # a large student's graph takes seconds to open
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


def find_category(
    client: grpcclient.InferenceServerClient, name: str, *, url: str, timeout_s: float, load: bool
) -> Category:
    """Look a category up; with `load` the server loads it when it is in the repository and not in memory.

    Raises:
        NotServed: the category is not served, or the model of that name is no category.
        InferenceServerException: the server does not answer.
    """
    if not client.is_model_ready(name, client_timeout=timeout_s):
        index = _index(client, load=load, timeout_s=timeout_s)
        if not load or name + ENCODED not in {model.name for model in index or ()}:
            raise NotServed(
                f"Category {name!r} is not served at {url}; {_served(index)}; publish it with "
                f"`make export CATEGORY={name}` and start the server again."
            )
        load_category(client, name, timeout_s=timeout_s)
    answer: Any = client.get_model_config(name, client_timeout=timeout_s)
    return _read_config(answer.config, name, url=url)


def _index(client: grpcclient.InferenceServerClient, *, load: bool, timeout_s: float) -> list[Any] | None:
    """The models that the server knows; None where it says so only with a key, unless a category is to be loaded.

    Raises:
        InferenceServerException: the server does not answer, or asks for a key.
    """
    try:
        return list(client.get_model_repository_index(client_timeout=timeout_s).models)
    except InferenceServerException as error:
        if load or fault_of(error).kind is not NotAllowed:
            raise
        return None


def _served(index: list[Any] | None) -> str:
    """For messages: the categories that a server serves."""
    if index is None:
        return "what it serves, it says only with a key (--key-file)"
    ready = {model.name for model in index if model.state == "READY"}
    served = sorted(model for model in ready if model + ENCODED in ready)
    return f"it serves {', '.join(served) or 'none'}"


def load_category(client: grpcclient.InferenceServerClient, name: str, *, timeout_s: float) -> None:
    """Load both ensembles and the steps that they name; what is in memory already stays as it is."""
    for model in (name, name + ENCODED):
        client.load_model(model, client_timeout=max(timeout_s, LOAD_TIMEOUT_S))


def _read_config(config: Any, name: str, *, url: str) -> Category:
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

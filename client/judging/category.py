"""A category on a server: looked up by its ensemble's configuration, and loaded where that is asked for."""

from __future__ import annotations

from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.core.category import ENCODED, Category, read_category, served_categories
from client.core.errors import NotAllowed, NotServed
from client.core.faults import fault_of

LOAD_TIMEOUT_S = 60.0  # a large student's graph takes seconds to open


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
                f"Category {name!r} is not served at {url}; {served_categories(index)}; publish it with "
                f"`make export CATEGORY={name}` and start the server again."
            )
        load_category(client, name, timeout_s=timeout_s)
    answer: Any = client.get_model_config(name, client_timeout=timeout_s)
    return read_category(answer.config, name, url=url)


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


def load_category(client: grpcclient.InferenceServerClient, name: str, *, timeout_s: float) -> None:
    """Load both ensembles and the steps that they name; what is in memory already stays as it is."""
    for model in (name, name + ENCODED):
        client.load_model(model, client_timeout=max(timeout_s, LOAD_TIMEOUT_S))

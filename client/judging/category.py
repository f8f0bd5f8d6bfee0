"""A category on a server: looked up by its ensemble's configuration, loaded where that is asked for, and followed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from client.core.category import ENCODED, Category, read_category, served_categories
from client.core.errors import NotAllowed, NotServed, RequestError, ServerError
from client.core.faults import fault_of
from client.judging.calls import retrying

LOAD_TIMEOUT_S = 60.0  # a large student's graph takes seconds to open


class FollowedCategory:
    """A category as it was looked up last; threads may share it.

    Attributes:
        name, url: of the category, and of the server.
        timeout_s: deadline of every call, seconds.
    """

    def __init__(
        self, client: grpcclient.InferenceServerClient, name: str, *, url: str, timeout_s: float, load: bool
    ) -> None:
        """Nothing is looked up yet; with `load` the server may load it."""
        self.name, self.url, self.timeout_s = name, url, timeout_s
        self._client, self._load = client, load
        self._found: Category | None = None
        self._followed = 0  # the release that it was looked up for

    @property
    def is_known(self) -> bool:
        """Whether it has been looked up."""
        return self._found is not None

    @property
    def found(self) -> Category:
        """What the server said of it.

        Raises:
            RequestError: it has not been looked up yet.
        """
        if self._found is None:
            raise RequestError(
                "This client has not connected yet; use it with `async with`, or await its connect()."
            )
        return self._found

    def look_up(self) -> None:
        """Ask the server about it, once.

        Raises:
            NotServed, InferenceServerException: see `find_category`.
        """
        self._found = find_category(
            self._client, self.name, url=self.url, timeout_s=self.timeout_s, load=self._load
        )
        self._followed = self._found.release_id

    def look_up_again(self) -> None:
        """Ask the server about it until it answers or the deadline has passed.

        Raises:
            ServerError, InferenceServerException: see `calls.retrying`.
        """
        retrying(self.look_up, url=self.url, timeout_s=self.timeout_s)

    def look_up_if_there(self) -> None:
        """Ask the server about it where that answers; otherwise what was known of it stands."""
        with contextlib.suppress(InferenceServerException, ServerError):
            self.look_up()

    def follow(self, release_id: int) -> None:
        """Look it up again where another release has judged than before.

        Raises:
            ServerError, InferenceServerException: see `look_up_again`.
        """
        if release_id != self._followed:
            self.look_up_again()
            self._followed = release_id

    def require_batch(self, batch: int) -> None:
        """Make sure that it takes requests of so many images.

        Raises:
            ServerError: it does not, not even as it is published by now.
        """
        if batch > self.found.max_batch:
            self.look_up_if_there()
        if batch > self.found.max_batch and self.found.is_native:
            raise ServerError(
                f"Category {self.name!r} at {self.url} judges each image at its own size, and those of different sizes "
                f"cannot be put together: {batch} a request were asked for; give a batch of 1."
            )
        if batch > self.found.max_batch:
            raise ServerError(
                f"Category {self.name!r} at {self.url} takes batches of up to {self.found.max_batch} images, and "
                f"{batch} were asked for; give a smaller batch, or publish it with --max-batch-size {batch}."
            )

    @property
    def load(self) -> Callable[[], None] | None:
        """Loads it; None where that is not asked for."""
        return self._load_again if self._load else None

    def _load_again(self) -> None:
        load_category(self._client, self.name, timeout_s=self.timeout_s)


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

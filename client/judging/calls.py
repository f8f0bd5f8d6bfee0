"""Calls whose caller waits: made again while that helps, and their errors as what they mean."""

from __future__ import annotations

import contextlib
import http.client
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tritonclient.utils import InferenceServerException

from client.core.errors import ServerError
from client.core.faults import Peer, closes_connections, server_error
from client.core.retries import Tries
from model_repository.grpc_channel import split_url, through_proxy

Result = TypeVar("Result")
PROBE_TIMEOUT_S = 2.0


def peer_of(url: str) -> Peer:
    """Who is asked at `url`, and through which proxy, as the environment names it now."""
    return Peer(url, through_proxy(url))


def named_error(error: InferenceServerException, *, url: str, timeout_s: float) -> ServerError:
    """What a failed call to `url` with a deadline of `timeout_s` seconds means, and what to do about it."""
    peer = peer_of(url)
    probed = not peer.through and closes_connections(error) and _speaks_http(url)
    return server_error(error, peer, timeout_s=timeout_s, speaks_http=probed)


@contextlib.contextmanager
def named_errors(*, url: str, timeout_s: float) -> Iterator[None]:
    """Turn the errors of calls into what they mean."""
    try:
        yield
    except InferenceServerException as error:
        raise named_error(error, url=url, timeout_s=timeout_s) from None


def retrying(call: Callable[[], Result], *, url: str, timeout_s: float) -> Result:
    """What a call gives that changes nothing or may be made twice; tried again within `timeout_s`.

    Raises:
        ServerError, InferenceServerException: see `Tries.after`.
    """
    tries = Tries.begin(peer_of(url), timeout_s=timeout_s, now_s=time.perf_counter())
    while True:
        try:
            return call()
        except InferenceServerException as error:
            tries, wait_s = tries.after(error, now_s=time.perf_counter(), chance=random.random())
            time.sleep(wait_s)


def _speaks_http(url: str) -> bool:
    connection = http.client.HTTPConnection(*split_url(url), timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True

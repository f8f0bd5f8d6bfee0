"""Several servers of one category: each image goes to the one with the least to do, and to another where that fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from client.core.errors import NotAllowed, NotServed, ServerError, Unreachable
from client.judging.connection import JudgeClient
from model_repository.grpc_endpoint import Endpoint

REST_S = 30.0  # until one image is sent again to a server that was away
AWAY = (Unreachable, NotServed, NotAllowed)
NEVER = float("inf")

Connect = Callable[[Endpoint], JudgeClient]


class Server:
    """A server, connected when it is first needed.

    Attributes:
        url: its host:port.
        busy: images that are on their way to it.
        rests_until_s: by the monotonic clock; it gets no images before.
        error: why it rests.
    """

    def __init__(self, endpoint: Endpoint, connect: Connect) -> None:
        self.url = endpoint.url
        self.busy = 0
        self.rests_until_s = 0.0
        self.error: ServerError | None = None
        self._endpoint, self._connect = endpoint, connect
        self._lock = threading.Lock()
        self._judge: JudgeClient | None = None

    def judge(self) -> JudgeClient:
        """The connection.

        Raises:
            ServerError: it cannot be connected, or does not have the category.
            RequestError: the address or a certificate cannot be.
        """
        with self._lock:
            self._judge = self._judge or self._connect(self._endpoint)
            return self._judge

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._judge is not None:
            self._judge.close()


class Servers:
    """The servers that a worker asks; threads share them."""

    def __init__(self, endpoints: Sequence[Endpoint], connect: Connect, *, first: int = 0) -> None:
        """Connect to none of them yet; `first` begins, so that workers do not all begin with the same."""
        turned = [*endpoints[first % len(endpoints) :], *endpoints[: first % len(endpoints)]]
        self._servers = [Server(endpoint, connect) for endpoint in turned]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._servers)

    def take(self, tried: Sequence[Server] = ()) -> Server | None:
        """The server with the least to do that was not tried, and is to be given back; None where there is none."""
        with self._lock:
            now_s = time.monotonic()
            awake = [
                server for server in self._servers if server not in tried and server.rests_until_s <= now_s
            ]
            if not awake:
                return None
            server = min(awake, key=lambda each: each.busy)
            server.busy += 1
            if server.error is not None:
                server.rests_until_s = (
                    NEVER  # for the others, until this one image has shown whether it is back
                )
            return server

    def give_back(self, server: Server, error: ServerError | None = None) -> None:
        """Say what became of asking a server; one that is away rests."""
        with self._lock:
            server.busy -= 1
            if isinstance(error, AWAY):
                server.error = error
                server.rests_until_s = time.monotonic() + REST_S
            else:
                server.error, server.rests_until_s = None, 0.0

    @property
    def away(self) -> ServerError | None:
        """Why all servers rest; None where one does not."""
        with self._lock:
            errors = [server.error for server in self._servers]
        return errors[0] if all(errors) else None

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers:
            server.close()


def distinct(endpoints: Sequence[Endpoint], say: Callable[[str], None]) -> tuple[Endpoint, ...]:
    """The endpoints without those that are another one by another name; twice the images would go to its server.

    Args:
        endpoints: of servers.
        say: takes a sentence about each that is left out.
    """
    kept: list[Endpoint] = []
    known: dict[tuple[str, int], str] = {}
    for endpoint in endpoints:
        addresses = _addresses(endpoint.url)
        other = next((known[address] for address in addresses if address in known), None)
        if other is not None:
            say(f"{endpoint.url} is the same server as {other}; it is asked as one.")
            continue
        known |= dict.fromkeys(addresses, endpoint.url)
        kept.append(endpoint)
    return tuple(kept)


def _addresses(url: str) -> list[tuple[str, int]]:
    """Where a name leads; nowhere where nobody knows it, which connecting tells."""
    host, _, port = url.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    return [(str(address[0]), int(address[1])) for *_, address in found]

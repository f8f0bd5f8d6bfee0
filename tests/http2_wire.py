"""A proxy before a gRPC server that notes which HTTP/2 frames a client sends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

HEADERS = 1  # the frame that begins a call
RST_STREAM = 3  # the one that cancels it
PREFACE = 24  # bytes before the first frame


class Wire:
    """What a client has sent."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def frames(self) -> list[int]:
        """The type of each whole frame."""
        types, at = [], PREFACE
        while at + 9 <= len(self.sent):
            types.append(self.sent[at + 3])
            at += 9 + int.from_bytes(self.sent[at : at + 3], "big")
        return types


def end(connection: socket.socket) -> None:
    """End both directions; closing alone does not wake a thread that waits for data."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def watched(url: str) -> Iterator[tuple[str, Wire]]:
    """A proxy before a server: its address, and what one client sends through it."""
    host, port = url.split(":")
    wire = Wire()

    def pump(source: socket.socket, target: socket.socket, sent: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sent += data
                target.sendall(data)
        end(target)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(3) as pool,
        ExitStack() as sockets,
    ):

        def kept(connection: socket.socket) -> socket.socket:
            sockets.enter_context(connection)
            sockets.callback(end, connection)
            return connection

        def accept() -> None:
            with suppress(OSError):
                client = kept(listener.accept()[0])
                server = kept(socket.create_connection((host, int(port))))
                pool.submit(pump, client, server, wire.sent)
                pool.submit(pump, server, client, bytearray())

        pool.submit(accept)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", wire
        finally:
            listener.shutdown(socket.SHUT_RDWR)

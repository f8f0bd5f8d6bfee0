"""Does the gRPC endpoint answer? Cancelled calls may leave it dead in a server that lives and answers over HTTP.

The call is `ServerLive`, which waits in no queue. It is written out here: a serving machine needs no gRPC library.
"""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4  # types of frames
END_HEADERS, END_STREAM = 4, 1
FRAME_HEAD = 9
STREAM = 1
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/inference.GRPCInferenceService/ServerLive"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


def grpc_answers(url: str, *, within_s: float) -> bool:
    """Whether the endpoint at `host:port` answers a call; whatever is not gRPC in the clear, as TLS, counts as well."""
    host, _, port = url.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), within_s) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + call())
            head = receive(connection, FRAME_HEAD)
            if head[3] != SETTINGS:
                return True
            while True:
                receive(connection, int.from_bytes(head[:3], "big"))
                head = receive(connection, FRAME_HEAD)
                if int.from_bytes(head[5:], "big") == STREAM:
                    return True
    except (TimeoutError, ConnectionRefusedError):
        return False
    except OSError:  # closed: somebody is there
        return True


def call() -> bytes:
    """The frames of a call with an empty message."""
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in REQUEST
    )
    return frame(HEADERS, END_HEADERS, STREAM, headers) + frame(DATA, END_STREAM, STREAM, bytes(5))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2: 24 bits of length, type, flags, stream."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def receive(connection: socket.socket, n_bytes: int) -> bytes:
    """Exactly so many bytes.

    Raises:
        OSError: the connection was closed, or nothing came in time.
    """
    data = b""
    while len(data) < n_bytes:
        chunk = connection.recv(n_bytes - len(data))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    return data

"""Does the gRPC endpoint answer? Cancelled calls may leave it dead in a server that lives and answers over HTTP.

HTTP/2 is written out here: a serving machine needs no gRPC library.
"""

from __future__ import annotations

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6  # types of frames
END_HEADERS, END_STREAM, ACK = 4, 1, 1  # flags of theirs
FRAME_HEAD = 9
STREAM = 1
SERVICE = "/inference.GRPCInferenceService/"


def grpc_answers(url: str, *, within_s: float) -> bool:
    """Whether the endpoint at `host:port` answers `ServerLive`, which waits in no queue; as TLS, too."""
    return call_is_answered(url, "ServerLive", b"", within_s=within_s) is not False


def call_is_answered(url: str, method: str, message: bytes, *, within_s: float) -> bool | None:
    """Whether a call is answered, with an error as well; None where the endpoint does not speak gRPC in the clear.

    Args:
        url: `host:port`.
        method: of Triton's inference service.
        message: the serialized request, 16 KiB at most.
        within_s: seconds for all of it.
    """
    host, _, port = url.rpartition(":")
    deadline_s = time.monotonic() + within_s
    try:
        with socket.create_connection((host, int(port)), within_s) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + call(method, message))
            head = receive(connection, FRAME_HEAD)
            if head[3] != SETTINGS:
                return None
            while not is_answer(head):
                payload = receive(connection, int.from_bytes(head[:3], "big"))
                if head[3] in (SETTINGS, PING) and not head[4] & ACK:
                    connection.sendall(frame(head[3], ACK, 0, payload if head[3] == PING else b""))
                connection.settimeout(max(0.001, deadline_s - time.monotonic()))
                head = receive(connection, FRAME_HEAD)
            return True
    except (TimeoutError, ConnectionRefusedError):
        return False
    except OSError:  # closed: somebody is there
        return None


def is_answer(head: bytes) -> bool:
    """Whether a frame is of the answer to the call, by its head; the server may enlarge the call's window before."""
    return int.from_bytes(head[5:], "big") == STREAM and head[3] in (DATA, HEADERS, RST_STREAM)


def call(method: str, message: bytes) -> bytes:
    """The frames of a call."""
    request = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", SERVICE + method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    headers = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in request
    )
    body = struct.pack(">BI", 0, len(message)) + message
    return frame(HEADERS, END_HEADERS, STREAM, headers) + frame(DATA, END_STREAM, STREAM, body)


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

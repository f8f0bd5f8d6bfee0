"""Does an inference end? One small image, sent as clients send theirs: over gRPC, or over HTTP where that is encrypted.

Its picture is no part: the fusion leaves its verdict out of the metrics (an older one knows no `probe`, and counts it).
Cancelled calls may leave the gRPC endpoint so that it answers all but inferences, while HTTP's would end.
"""

from __future__ import annotations

import http.client
import json
import struct
import zlib
from urllib.parse import quote, urlsplit

from deploy.supervision.grpc_probe import call_is_answered

SIDE = 64  # pixels of the image, which the server brings to the category's size
INPUT, OUTPUT = "encoded_image", "pred_score"
PARAMETERS = ("score_only", "probe")  # true: no maps, and not counted as a part


def inference_answers(grpc_url: str, http_url: str, model: str, within_s: float) -> bool:
    """Whether an ensemble that takes image files answers, with an error as well, as of a full queue or its absence."""
    answered = call_is_answered(grpc_url, "ModelInfer", grpc_message(model), within_s=within_s)
    return http_answers(http_url, model, within_s=within_s) if answered is None else answered


def http_answers(http_url: str, model: str, *, within_s: float) -> bool:
    """The same over HTTP alone, of which inference needs no key."""
    connection = http.client.HTTPConnection(urlsplit(http_url).netloc, timeout=within_s)
    tensor = image_tensor()
    asked = {
        "inputs": [
            {
                "name": INPUT,
                "datatype": "BYTES",
                "shape": [1, 1],
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "outputs": [{"name": OUTPUT}],
        "parameters": dict.fromkeys(PARAMETERS, True),
    }
    head = json.dumps(asked).encode()
    try:
        connection.request(
            "POST",
            f"/v2/models/{quote(model, safe='')}/infer",
            head + tensor,
            {"Inference-Header-Content-Length": str(len(head))},
        )
        connection.getresponse().read()
    except (TimeoutError, ConnectionRefusedError):
        return False
    except (OSError, http.client.HTTPException):  # closed: somebody is there
        return True
    finally:
        connection.close()
    return True


def grpc_message(model: str) -> bytes:
    """A `ModelInferRequest` of Triton's grpc_service.proto."""
    yes = b"\x08\x01"  # an InferParameter's bool_param
    tensor = _field(1, INPUT.encode()) + _field(2, b"BYTES") + _field(3, b"\x01\x01")  # of shape [1, 1]
    return (
        _field(1, model.encode())
        + b"".join(_field(4, _field(1, name.encode()) + _field(2, yes)) for name in PARAMETERS)
        + _field(5, tensor)
        + _field(6, _field(1, OUTPUT.encode()))
        + _field(7, image_tensor())
    )


def image_tensor() -> bytes:
    """A grey PNG as a tensor of one string: 4 bytes of length, then the file."""
    lines = (b"\x00" + b"\x80" * 3 * SIDE) * SIDE
    file = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(lines))
        + _chunk(b"IEND", b"")
    )
    return struct.pack("<I", len(file)) + file


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _field(number: int, payload: bytes) -> bytes:
    """A field of a protobuf message: its number and the wire type of bytes, their length, and they."""
    length, rest = b"", len(payload)
    while rest > 0x7F:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + payload

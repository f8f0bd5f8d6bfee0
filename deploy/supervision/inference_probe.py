"""Does an inference end? One small image, sent as clients send theirs: over gRPC, or over HTTP where that is encrypted.

Its picture is grey, or of a category that aligns its images the reference picture, since grey cannot be aligned. It is
no part: the fusion leaves its verdict out of the metrics (an older one knows no `probe`, and counts it).
Cancelled calls may leave the gRPC endpoint so that it answers all but inferences, while HTTP's would end.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import struct
import zlib
from pathlib import Path
from urllib.parse import quote, urlsplit

from deploy.errors import RepositoryError
from deploy.repository import read_config
from deploy.supervision.grpc_probe import call_is_answered

SIDE = 64  # pixels of the image, which the server brings to the category's size
INPUT, OUTPUT = "encoded_image", "pred_score"
PINNED = r'^ *model_name: "(.+)"\n *model_version: (\d+)$'
REFERENCE = "alignment.json"  # in a version of the step that aligns, see `model_repository.alignment`
PARAMETERS = ("score_only", "probe")  # true: no maps, and not counted as a part


def inference_answers(
    grpc_url: str, http_url: str, model: str, within_s: float, *, repository: Path | None = None
) -> bool:
    """Whether an ensemble that takes image files answers, with an error as well, as of a full queue or its absence.

    In the repository that is served lies what its images are aligned to, if they are.
    """
    picture = probe_picture(repository, model)
    answered = call_is_answered(grpc_url, "ModelInfer", grpc_message(model, picture), within_s=within_s)
    return http_answers(http_url, model, picture, within_s=within_s) if answered is None else answered


def http_answers(http_url: str, model: str, picture: bytes, *, within_s: float) -> bool:
    """The same over HTTP alone, of which inference needs no key."""
    connection = http.client.HTTPConnection(urlsplit(http_url).netloc, timeout=within_s)
    tensor = image_tensor(picture)
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


def grpc_message(model: str, picture: bytes) -> bytes:
    """A `ModelInferRequest` of Triton's grpc_service.proto."""
    yes = b"\x08\x01"  # an InferParameter's bool_param
    tensor = _field(1, INPUT.encode()) + _field(2, b"BYTES") + _field(3, b"\x01\x01")  # of shape [1, 1]
    return (
        _field(1, model.encode())
        + b"".join(_field(4, _field(1, name.encode()) + _field(2, yes)) for name in PARAMETERS)
        + _field(5, tensor)
        + _field(6, _field(1, OUTPUT.encode()))
        + _field(7, image_tensor(picture))
    )


def probe_picture(repository: Path | None, model: str) -> bytes:
    """The PNG that an ensemble is asked about; grey where its images are not aligned, or to what cannot be read."""
    path = None if repository is None else reference_picture(repository, model)
    if path is None:
        return grey_png(b"\x80" * SIDE * SIDE, SIDE, SIDE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pixels, width, height = base64.b64decode(content["gray"]), content["width"], content["height"]
        return grey_png(pixels, int(width), int(height))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        struct.error,
    ):  # the step itself says what is wrong with it
        return probe_picture(None, model)


def reference_picture(repository: Path, model: str) -> Path | None:
    """The file of the picture that an ensemble's images are aligned to; None where they are not, or it is not there."""
    with contextlib.suppress(RepositoryError):
        config = read_config(repository / model / "config.pbtxt")
        for step, version in re.findall(PINNED, config, re.MULTILINE):
            path = Path(repository, step, version, REFERENCE)
            if path.is_file():
                return path
    return None


def grey_png(pixels: bytes, width: int, height: int) -> bytes:
    """A PNG file of grey pixels, row by row."""
    lines = b"".join(b"\x00" + pixels[row * width : (row + 1) * width] for row in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(lines))
        + _chunk(b"IEND", b"")
    )


def image_tensor(file: bytes) -> bytes:
    """A file as a tensor of one string: 4 bytes of length, then the file."""
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

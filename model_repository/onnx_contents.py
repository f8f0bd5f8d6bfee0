"""What an ONNX file must not bring along: weights in other files, and operators that ONNX itself does not define.

External data names paths, which ONNX Runtime would read; an operator of another domain is somebody's own code, or not
what was verified. The file is read as protocol buffers by hand, for neither a server nor a machine that keeps releases
has onnx. It looks into every graph, those in the attributes of If, Loop and Scan and in functions too.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# By kind of message: the fields that hold messages, by their numbers in onnx.proto, and of which kind those are.
MESSAGES = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
DOMAINS = {"opset": 1, "node": 7, "function": 10}  # the field that names the domain
OWN_DOMAINS = (b"", b"ai.onnx")
EXTERNAL_DATA, DATA_LOCATION, GRAPH = 13, 14, 7  # of a tensor, of a tensor, of a model
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # how a field lies in the file


class OnnxError(ValueError):
    """An ONNX file that must not be opened; the message follows the file's name in a sentence."""


def require_plain(path: Path) -> None:
    """Make sure that a file is an ONNX graph of ONNX's own operators with all weights inside.

    Raises:
        OnnxError: it is not; OSError where it cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise OnnxError("is empty; expected an ONNX graph")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                _require_plain(content)
            except IndexError:
                raise OnnxError("is no whole ONNX graph") from None


def _require_plain(content: mmap.mmap) -> None:
    waiting, has_graph = [("model", 0, len(content))], False
    while waiting:
        kind, start, end = waiting.pop()
        for number, value in _fields(content, start, end):
            if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                raise OnnxError("keeps weights in other files; expected all of them inside")
            if not isinstance(value, tuple):
                continue
            has_graph |= (kind, number) == ("model", GRAPH)
            if number in MESSAGES.get(kind, {}):
                waiting.append((MESSAGES[kind][number], *value))
            elif number == DOMAINS.get(kind) and (domain := content[value[0] : value[1]]) not in OWN_DOMAINS:
                found = domain[:100].decode(errors="backslashreplace")
                raise OnnxError(f"uses operator domains [{found!r}]; expected ONNX's own alone")
    if not has_graph:
        raise OnnxError("is no ONNX graph")


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Number and value of each field of a message: an integer, or where the bytes lie.

    Raises:
        IndexError: the file is none of protocol buffers.
    """
    while start < end:
        key, start = _integer(content, start)
        kind, value = key & 7, 0
        if kind == VARINT:
            value, start = _integer(content, start)
            yield key >> 3, value
            continue
        if kind == BYTES:
            value, start = _integer(content, start)
        length = {BYTES: value, EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, -1)
        if length < 0 or start + length > end:
            raise IndexError
        if kind == BYTES:
            yield key >> 3, (start, start + length)
        start += length


def _integer(content: mmap.mmap, start: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, and where what follows begins."""
    value = 0
    for place in range(10):
        byte = content[start + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, start + place + 1
    raise IndexError

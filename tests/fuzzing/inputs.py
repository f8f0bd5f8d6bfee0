"""What is sent: whole pictures and tensors with something done to them, drawn by hypothesis."""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.model_repository.bad_pictures import BAD_PICTURES
from tests.model_repository.odd_pictures import ODD_PICTURES
from tests.model_repository.picture_bytes import PNG_START

CORPUS = Path(__file__).parent / "corpus"
MOST_SEED_BYTES = 20_000
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
KINDS = ("flip", "byte", "number", "cut", "remove", "repeat", "insert", "splice")
DISTANCES = ("distance_1", "distance_2", "distance_3")
OUTPUTS = ("anomaly_map", "pred_score", "pred_label", "pred_mask", "threshold", "release_id")
TYPES = ("float32", "float64", "float16", "int32", "int64", "uint8", "bool", "complex64")


@dataclass(frozen=True)
class FusionRequest:
    """A request to the fusion: parameters as JSON text, tensors as type, shape and what fills them."""

    parameters: str
    tensors: dict[str, tuple[str, list[int], float]]
    outputs: list[str]

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()


def seeds() -> list[bytes]:
    """Small whole pictures and bad ones."""
    made = [picture.make() for name, picture in ODD_PICTURES.items() if "black frame" not in name]
    small = [data for data in made if len(data) <= MOST_SEED_BYTES]
    bad = [
        picture.make() for name, picture in BAD_PICTURES.items() if "bomb" not in name and "scans" not in name
    ]
    return small + [data for data in bad if 0 < len(data) <= MOST_SEED_BYTES]


def kept_pictures() -> list[bytes]:
    """Pictures that once went wrong."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.picture"))]


def pictures(whole: list[bytes]) -> st.SearchStrategy[bytes]:
    """A picture to which something was done some times; the checksums of a PNG may be right again."""
    change = st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 2**20),
        st.integers(1, 64),
        st.sampled_from(NUMBERS),
        st.booleans(),
    )
    return st.builds(
        _changed, st.sampled_from(whole), st.lists(change, max_size=6), st.sampled_from(whole), st.booleans()
    )


def _changed(
    picture: bytes, changes: list[tuple[str, int, int, int, bool]], other: bytes, with_checksums: bool
) -> bytes:
    data = bytearray(picture)
    for kind, place, length, number, big in changes:
        # Half of the changes near the beginning, where the headers are.
        at = place % max(1, len(data) if place % 2 else min(len(data), 200))
        if kind == "flip" and data:
            data[at] ^= 1 << length % 8
        elif kind == "byte" and data:
            data[at] = number % 256
        elif kind == "number":
            size = 2 if length % 2 else 4
            data[at : at + size] = (number % 256**size).to_bytes(size, "big" if big else "little")
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * (number % 300)
        elif kind == "insert":
            data[at:at] = bytes([number % 256]) * length
        elif kind == "splice":
            data[at:] = other[place % max(1, len(other)) :]
    return right_checksums(bytes(data)) if with_checksums else bytes(data)


def right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now; other files as they are."""
    if not data.startswith(PNG_START):
        return data
    fixed, at = bytearray(data), len(PNG_START)
    while at + 12 <= len(fixed):
        length = struct.unpack(">I", fixed[at : at + 4])[0]
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def fusion_requests(weights_id: int) -> st.SearchStrategy[FusionRequest]:
    """Requests of which little is right, and many of which most is."""
    value = st.one_of(
        st.sampled_from([0.0, 0.5, -1.0, 3e38, -3e38, float("nan"), float("inf"), 1e-45]), st.floats(width=32)
    )
    right = {name: ("float32", [1, side, side]) for name, side in zip(DISTANCES, (16, 8, 4), strict=True)}

    def tensor(name: str) -> st.SearchStrategy[tuple[str, list[int], float]]:
        usual = st.tuples(st.just(right[name][0]), st.just(right[name][1]), value)
        shape = st.lists(st.integers(0, 20), max_size=4)
        return st.one_of(usual, usual, usual, st.tuples(st.sampled_from(TYPES), shape, value))

    release = st.one_of(
        st.just(("int64", [1, 1], float(weights_id))),
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 3), max_size=3), value),
        st.tuples(st.just("int64"), st.just([1, 1]), st.sampled_from([0.0, -1.0, 8.0, 1e18])),
    )
    foreground = st.tuples(
        st.sampled_from(TYPES), st.lists(st.integers(0, 70), max_size=4), st.sampled_from([0.0, 1.0])
    )
    tensors = st.fixed_dictionaries(
        {name: tensor(name) for name in DISTANCES} | {"release_id": release},
        optional={"foreground": foreground},
    )
    return st.builds(
        FusionRequest,
        parameters=st.one_of(st.just(""), parameter_texts()),
        tensors=tensors,
        outputs=st.lists(st.sampled_from(OUTPUTS), unique=True),
    )


def parameter_texts() -> st.SearchStrategy[str]:
    """What the server hands over as parameters: JSON, and what is none."""
    scalar: st.SearchStrategy[Any] = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
        st.sampled_from(["nan", "inf", "-0", "1e400", "0x10", "1_0", " 1 ", "٣", "0.5"]),
    )  # fmt: skip
    names = st.one_of(st.sampled_from(["threshold", "score_only", "probe", "other"]), st.text(max_size=5))
    objects = st.dictionaries(names, st.one_of(scalar, st.lists(scalar, max_size=2)), max_size=3).map(
        json.dumps
    )
    return st.one_of(
        objects, objects, objects, st.text(max_size=30), st.sampled_from(["[" * 5_000, "null", "3", "[]"])
    )


def is_clean(sentence: str) -> bool:
    """Whether an error is something to show to a person."""
    return 0 < len(sentence) < 2_000 and re.search(r"[\x00-\x1f\x7f]|Traceback", sentence) is None

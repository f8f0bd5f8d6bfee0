"""A row of the results: an image with its verdict, or why it has none. Shards are Parquet files of such rows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from client.archiving.tally import ERRORS_KEPT, Tally
from client.predictions.csv_file import NOT_JUDGED
from client.predictions.prediction import Prediction

GOOD, ANOMALOUS = "good", "anomalous"  # the other label is NOT_JUDGED
METADATA = b"astmfr"  # of the files' schema: a JSON object
COMPRESSION = "zstd"
SIZE = pa.struct([("width", pa.int32()), ("height", pa.int32())])
DEFECT = pa.struct(
    [
        *((name, pa.int32()) for name in ("left", "top", "width", "height")),
        ("area", pa.int64()),
        *((name, pa.float64()) for name in ("peak", "mean", "centre_x", "centre_y")),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("label", pa.string(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("release_id", pa.int64()),
        pa.field("original_size", SIZE),
        pa.field("defects", pa.list_(DEFECT)),
        pa.field("error", pa.string()),
        pa.field("judged_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("server", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """What became of an image.

    Attributes:
        path: of the file, from the root.
        category: that it was asked about.
        judged_at: when the answer or the fault was there.
        prediction: the verdict; None where there is none.
        server: host:port of the one that judged.
        error: why there is no verdict, in one sentence.
    """

    path: bytes
    category: str
    judged_at: datetime
    prediction: Prediction | None = None
    server: str | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """`good`, `anomalous` or `not judged`."""
        if self.prediction is None:
            return NOT_JUDGED
        return ANOMALOUS if self.prediction.anomalous else GOOD

    def to_dict(self) -> dict[str, Any]:
        """By column; bytes of a file's name that are no UTF-8 are written as `\\udcff`."""
        values: dict[str, Any] = {
            "path": _text(os.fsdecode(self.path)),
            "category": self.category,
            "label": self.label,
            "judged_at": self.judged_at,
            "server": self.server,
            "error": None if self.error is None else _text(self.error),
        }
        verdict = self.prediction
        if verdict is not None:
            values |= {name: getattr(verdict, name) for name in ("score", "threshold", "release_id")}
            if verdict.original_size is not None:
                values["original_size"] = dict(zip(("width", "height"), verdict.original_size, strict=True))
            if verdict.defects is not None:
                values["defects"] = [asdict(defect) for defect in verdict.defects]
        return values


def tally_of(rows: Sequence[Row]) -> Tally:
    """Count rows."""
    tally = Tally(images=len(rows))
    for row in rows:
        if row.prediction is None:
            tally.not_judged += 1
            if len(tally.errors) < ERRORS_KEPT:
                tally.errors.append(_text(row.error or NOT_JUDGED))
            continue
        tally.anomalous += row.prediction.anomalous
        tally.releases[row.prediction.release_id] += 1
        tally.servers[str(row.server)] += 1
        tally.synthetic = tally.synthetic or row.prediction.synthetic
    return tally


def shard_file(rows: Sequence[Row], *, digest: str) -> bytes:
    """A Parquet file of a shard's rows.

    Args:
        rows: one an image, in their order.
        digest: of the shard's images, see `Plan.digest_of`; by it the file is known as this shard's.
    """
    tally = tally_of(rows)
    schema = with_metadata({"images": digest, "tally": tally.to_dict()})
    table = pa.Table.from_pylist([row.to_dict() for row in rows], schema=schema)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=COMPRESSION)
    return sink.getvalue()


def with_metadata(values: dict[str, Any]) -> pa.Schema:
    """The schema of the rows, with a JSON object in its metadata."""
    return SCHEMA.with_metadata({METADATA: json.dumps(values).encode()})


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON object in the metadata of a file of rows.

    Raises:
        ValueError: it is no file of such rows, or not a whole one.
        OSError: it cannot be read.
    """
    schema = pq.read_schema(path)  # raises pa.ArrowInvalid, a ValueError, where it is no Parquet file
    values = json.loads((schema.metadata or {}).get(METADATA, b"null"))
    if not isinstance(values, dict) or not schema.equals(SCHEMA):
        raise ValueError("it holds other columns")
    return values


def _text(text: str) -> str:
    return text.encode("utf-8", errors="backslashreplace").decode()

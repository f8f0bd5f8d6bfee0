"""One file of all shards' files, read and written a shard at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from client.archiving.rows import COMPRESSION, with_metadata
from client.files import StorageError, replace_file


def merge(parts: Iterable[Path], results: Path, *, metadata: dict[str, Any], n_rows: int) -> None:
    """Write the rows of all parts into one file, whole or not at all.

    Args:
        parts: in their order.
        results: the file.
        metadata: of the file's schema, a JSON object.
        n_rows: that there have to be.

    Raises:
        StorageError: it cannot be written, a part cannot be read, or the rows are not as many as they have to be.
    """

    def write(temporary: Path) -> None:
        written = 0
        with pq.ParquetWriter(temporary, with_metadata(metadata), compression=COMPRESSION) as writer:
            for part in parts:
                written += _copy(part, writer)
        if written != n_rows:
            raise StorageError(
                f"The parts of {results} hold {written:,} rows, and {n_rows:,} images were listed; run the same "
                "command again."
            )

    replace_file(results, write)


def _copy(part: Path, writer: Any) -> int:
    """Write a part's rows; says how many."""
    try:
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group).replace_schema_metadata(writer.schema.metadata))
            return int(file.metadata.num_rows)
    except pa.ArrowInvalid as error:
        part.unlink(missing_ok=True)
        raise StorageError(
            f"{part} is damaged ({error}) and was removed; run the same command again to judge its images again."
        ) from None

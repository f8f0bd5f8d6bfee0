"""The history: searched, looked through one by one, and exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from client.core.errors import RequestError
from client.page.routes.answers import (
    inspection_of,
    number_of,
    state_of,
    station_of,
    whole_number_of,
)
from client.page.store import history
from client.page.store.history import Filters
from client.page.store.inspections import Inspection

PAGE = 50  # rows at a time
CHOICES = {
    "outcome": ("good", "reject", "failed", "waiting"),
    "marked": ("any", "escape", "false reject"),
}
COLUMNS = (
    "id", "arrived_at", "category", "name", "outcome", "score", "threshold", "release_id", "latency_ms", "synthetic",
    "width", "height", "n_defects", "largest_defect", "defects", "wrong", "note", "who", "reason",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins with one


def search(request: Request) -> Response:
    """One page of rows, newest first."""
    database, filters = state_of(request).database, filters_of(request)
    before, after = whole_number_of(request, "before"), whole_number_of(request, "after")
    rows = history.rows(database, filters, limit=PAGE + 1, before=before, after=after)
    more = len(rows) > PAGE
    if after is not None:
        rows = rows[-PAGE:]
    content: dict[str, Any] = {
        "inspections": [row.to_dict() for row in rows[:PAGE]],
        "older": more if after is None else True,
        "newer": before is not None if after is None else more,
    }
    return JSONResponse(content)


def count(request: Request) -> Response:
    """How many rows there are."""
    return JSONResponse({"count": history.count(state_of(request).database, filters_of(request))})


def releases(request: Request) -> Response:
    """Releases that judged, the latest first."""
    category = request.query_params.get("category") or None
    found = history.releases(state_of(request).database, category)
    return JSONResponse({"releases": [{"id": str(number), "count": count} for number, count in found]})


def look(request: Request) -> Response:
    """One picture, and the ones before and after it among those that the filters let through."""
    inspection = inspection_of(request)
    older, newer = history.neighbours(state_of(request).database, inspection.id, filters_of(request))
    return JSONResponse({"inspection": inspection.to_dict(), "older": older, "newer": newer})


def export_csv(request: Request) -> Response:
    """All rows that the filters let through, as CSV."""
    rows = history.every_row(state_of(request).database, filters_of(request))
    return _download(_csv_lines(rows), "text/csv; charset=utf-8", "csv")


def export_json(request: Request) -> Response:
    """All rows that the filters let through, as one JSON list."""
    rows = history.every_row(state_of(request).database, filters_of(request))
    return _download(_json_lines(rows), "application/json", "json")


def filters_of(request: Request) -> Filters:
    """The conditions in an address.

    Raises:
        RequestError: one that cannot be.
    """
    given = request.query_params
    for name, choices in CHOICES.items():
        if given.get(name) and given[name] not in choices:
            raise RequestError(f"{name} is {given[name][:40]!r}; expected {', '.join(choices)}.")
    category = given.get("category") or None
    if category is not None:
        station_of(request, category)
    return Filters(
        category=category,
        outcome=given.get("outcome") or None,
        marked=given.get("marked") or None,
        release_id=whole_number_of(request, "release"),
        since=number_of(request, "since"),
        until=number_of(request, "until"),
        defect_from=whole_number_of(request, "defect_from"),
        defect_to=whole_number_of(request, "defect_to"),
        name=given.get("name", "")[:200] or None,
    )


def _download(lines: Iterator[str], media_type: str, suffix: str) -> Response:
    name = f"history-{datetime.now():%Y%m%d-%H%M%S}.{suffix}"
    return StreamingResponse(
        lines, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _row(inspection: Inspection) -> dict[str, Any]:
    """A row as it is exported: the time as text with this machine's offset."""
    values = inspection.to_dict()
    defects = inspection.defects
    values["arrived_at"] = (
        datetime.fromtimestamp(inspection.arrived_at).astimezone().isoformat(timespec="milliseconds")
    )
    values["n_defects"] = None if defects is None else len(defects)
    values["largest_defect"] = (
        None if defects is None else max((defect["area"] for defect in defects), default=0)
    )
    return {name: values[name] for name in COLUMNS}


def _csv_lines(rows: Iterator[Inspection]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    for row in rows:
        values = _row(row)
        if values["defects"] is not None:
            values["defects"] = json.dumps(values["defects"])
        writer.writerow({name: _harmless(value) for name, value in values.items()})
        if buffer.tell() > 1 << 16:
            yield _taken(buffer)
    yield _taken(buffer)


def _json_lines(rows: Iterator[Inspection]) -> Iterator[str]:
    separator = "[\n"
    for row in rows:
        yield separator + json.dumps(_row(row))
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text

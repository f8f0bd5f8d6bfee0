"""What arrives: dropped pictures taken in, the last ones, counts of the shift, and events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from client.core.errors import RequestError
from client.files import StorageError
from client.page.events import encode
from client.page.inspecting.files import LARGEST_UPLOAD, keep_upload, shown_name
from client.page.inspecting.station import Station
from client.page.routes import limits
from client.page.routes.answers import (
    inspection_of,
    read_body,
    read_json,
    state_of,
    station_of,
    whole_number_of,
)
from client.page.state import State
from client.page.store import counts, inspections, settings
from client.page.store.inspections import NewInspection

SMALL_UPLOAD = 32 << 20  # bytes; of larger ones a few are taken at a time, as each lies in memory
STRIP = 36  # pictures
MOST_MISSED = 200  # events that are sent again; a page that missed more loads anew


async def take_picture(request: Request) -> Response:
    """Take in a picture that was dropped onto the page; it is judged as soon as the server can."""
    station = station_of(request, request.query_params.get("category"))
    name = request.query_params.get("name", "")
    state = state_of(request)
    stated = request.headers.get("content-length", "")
    is_small = stated.isdecimal() and int(stated) <= SMALL_UPLOAD
    async with contextlib.nullcontext() if is_small else limits.of(limits.UPLOAD):
        content = await read_body(request, LARGEST_UPLOAD)
        return JSONResponse(await run_in_threadpool(_keep, state, station, content, name), status_code=201)


def _keep(state: State, station: Station, content: bytes, name: str) -> dict[str, Any]:
    picture = keep_upload(state.database.pictures, content, name)
    new = NewInspection(
        category=station.category,
        name=shown_name(name),
        source="dropped",
        arrived_at=state.now(),
        picture=picture,
        thumbnail=None,
    )
    try:
        number = inspections.add(state.database, new)
    except StorageError:
        (state.database.pictures / picture).unlink(missing_ok=True)  # nobody would ever find it
        raise
    assert number is not None  # only a journal's numbers are known already
    station.tell_changed(number)
    station.wake()
    return {"id": number}


def judge_again(request: Request) -> Response:
    """Let a picture that was not judged wait again."""
    inspection = inspection_of(request)
    if inspection.outcome != "failed":
        raise RequestError(
            f"{inspection.name} is {inspection.outcome}; only what was not judged is asked again."
        )
    station = station_of(request, inspection.category)
    inspections.retry(state_of(request).database, inspection.id)
    station.tell_changed(inspection.id)
    station.wake()
    return JSONResponse({"id": inspection.id})


def live(request: Request) -> Response:
    """All that the live view starts with."""
    station, state = station_of(request, request.query_params.get("category")), state_of(request)
    change = inspections.last_change(state.database)  # before the rest: what comes meanwhile is told again
    latest = inspections.latest(state.database, station.category, STRIP)
    return JSONResponse(
        {
            "change": change,
            "inspections": [inspection.to_dict() for inspection in latest],
            "shift": _shift(state, station.category),
            "status": station.status.to_dict(),
            "notices": list(state.notices.values()),
        }
    )


def shift(request: Request) -> Response:
    """Counts and reject rate of the current shift."""
    station = station_of(request, request.query_params.get("category"))
    return JSONResponse(_shift(state_of(request), station.category))


async def set_shift(request: Request) -> Response:
    """Set when shifts start, or begin to count anew."""
    content, state = await read_json(request), state_of(request)
    starts = content.get("starts")
    if content.get("now") is True:
        await run_in_threadpool(settings.count_from, state.database, datetime.now().astimezone())
    elif isinstance(starts, list) and all(isinstance(start, str) for start in starts):
        await run_in_threadpool(settings.set_shift_starts, state.database, starts)
    else:
        raise RequestError('Nothing to set; expected {"now": true} or {"starts": ["06:00"]}.')
    state.hub.publish("shift", {})
    return JSONResponse({})


async def events(request: Request) -> Response:
    """A stream of events; first those that the page missed since the change that it names."""
    last = request.headers.get("last-event-id", "")
    since = int(last) if last.isdecimal() and len(last) < 19 else whole_number_of(request, "since")
    return StreamingResponse(
        _events(state_of(request), since), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _events(state: State, since: int | None) -> AsyncIterator[str]:
    listening = state.hub.listen()
    first = True
    async for event in listening:
        yield event
        if first:  # by now nothing is missed any more
            first = False
            for station in state.stations.values():
                yield encode("status", station.status.to_dict())
            yield encode("notices", list(state.notices.values()))
            if since is not None:
                missed = await run_in_threadpool(
                    inspections.changed_since, state.database, since, MOST_MISSED + 1
                )
                if len(missed) > MOST_MISSED:
                    yield encode("reload", {})
                    continue
                for inspection in missed:
                    yield encode("inspection", inspection.to_dict(), change=inspection.changed)


def _shift(state: State, category: str) -> dict[str, Any]:
    current = settings.current_shift(state.database, datetime.now().astimezone())
    found = counts.counts(state.database, category, current.since.timestamp())
    return {
        **asdict(found),
        "waiting": found.waiting + state.waiting_of(category),
        "reject_rate": found.reject_rate,
        "since": current.since.isoformat(),
        "by_hand": current.by_hand,
        "starts": settings.shift_starts(state.database),
    }

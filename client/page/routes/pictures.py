"""Pictures as browsers show them, and their anomaly maps."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from anyio import to_thread
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from client.core.errors import ImageFileError
from client.page.inspecting import maps, views
from client.page.routes import limits
from client.page.routes.answers import inspection_of, state_of, station_of
from client.page.store import inspections, marked
from client.page.store.inspections import Inspection, StoredMap

Value = TypeVar("Value")
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # an id's pixels never change


def thumbnail(request: Request) -> Response:
    """A small JPEG."""
    inspection = inspection_of(request)
    jpeg = inspections.thumbnail(state_of(request).database, inspection.id)
    if jpeg is None:
        raise HTTPException(404, f"There is no thumbnail of {inspection.name} (yet).")
    return Response(jpeg, media_type="image/jpeg", headers=FOREVER)


def preview(request: Request) -> Response:
    """A JPEG of a screen's size."""
    inspection = inspection_of(request)
    station = station_of(request, inspection.category)
    jpeg = station.previews.get(inspection.id)
    if jpeg is None:
        jpeg = views.preview(_readable(station.read, inspection))
        station.previews.keep(inspection.id, jpeg)
    return Response(jpeg, media_type="image/jpeg", headers=FOREVER)


def picture(request: Request) -> Response:
    """Every pixel: the file, or a PNG of it where browsers would show something else than what was judged."""
    inspection = inspection_of(request)
    station = station_of(request, inspection.category)
    path = _readable(station.path, inspection)
    kind = views.content_type(path) if path.is_file() else None
    if kind is not None:
        return FileResponse(path, media_type=kind, headers=FOREVER)
    try:
        png = views.every_pixel(path, bit_depth=station.bit_depth)
    except ImageFileError as error:
        raise HTTPException(404, error.message.replace(str(path), inspection.name)) from None
    return Response(png, media_type="image/png", headers=FOREVER)


async def anomaly_map(request: Request) -> Response:
    """The anomaly map as [H, W] float32, little endian, and after it the mask as [H, W] bytes.

    The headers `x-rows` and `x-columns` are H and W. Where no map was kept, since `watch` keeps none, the server is
    asked again, and the answer is kept; `x-release` names who drew it.
    """
    inspection = await run_in_threadpool(inspection_of, request)
    stored = await run_in_threadpool(inspections.stored_map, state_of(request).database, inspection.id)
    if stored is None:  # the server may be away, and who waits for it keeps nobody else waiting
        stored = await to_thread.run_sync(_ask_for_map, request, inspection, limiter=limits.of(limits.MAPS))
    return await run_in_threadpool(_map_answer, stored)


def _ask_for_map(request: Request, inspection: Inspection) -> StoredMap:
    if inspection.score is None:
        raise HTTPException(404, f"{inspection.name} is not judged, and has no map.")
    station = station_of(request, inspection.category)
    with station.judging() as judge:
        stored = maps.pack(judge.judge(_readable(station.read, inspection)))
    inspections.keep_map(state_of(request).database, inspection.id, stored)
    return stored


def _map_answer(stored: StoredMap) -> Response:
    values, mask = maps.unpack(stored)
    content = values.astype("<f4").tobytes() + mask.astype(np.uint8).tobytes()
    headers = {
        "x-rows": str(values.shape[0]),
        "x-columns": str(values.shape[1]),
        "x-release": str(stored.release_id),
        "content-encoding": "deflate",
        "cache-control": "private, max-age=3600",
    }
    return Response(zlib.compress(content, 1), media_type="application/octet-stream", headers=headers)


def drawn_mask(request: Request) -> Response:
    """The mask that somebody drew."""
    inspection = inspection_of(request)
    png = marked.mask_of(state_of(request).database, inspection.id)
    if png is None:
        raise HTTPException(404, f"Nobody drew a mask of {inspection.name}.")
    return Response(png, media_type="image/png")


def _readable(read: Callable[[Inspection], Value], inspection: Inspection) -> Value:
    """What a picture's file gives.

    Raises:
        HTTPException: it is gone or broken.
    """
    try:
        return read(inspection)
    except ImageFileError as error:
        raise HTTPException(404, error.message) from None

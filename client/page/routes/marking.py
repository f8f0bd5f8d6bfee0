"""Verdicts marked as wrong: kept, taken back, exported as a training set, and judged by a candidate release."""

from __future__ import annotations

import base64
import io
import struct
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from anyio import to_thread
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from client.core.errors import RequestError
from client.files import storage_errors
from client.judging.connection import JudgeClient
from client.page.access.required import ONLY_LOOK
from client.page.comparing import Compared, candidates, compare, preview
from client.page.inspecting.station import Station
from client.page.marks import Exported, Mark, MarkedPicture, export_marks
from client.page.routes import limits
from client.page.routes.answers import inspection_of, person_of, read_json, state_of, station_of, text_of
from client.page.state import State
from client.page.store import marked
from client.page.store.database import PACKED
from client.page.store.inspections import Inspection
from client.page.training_set.contents import Wrong
from model_repository.image_decoder.image_decoding import ImageError, open_image

WRONG_OF = {"good": "escape", "reject": "false reject"}
ZIP_PART = 1 << 20  # bytes
CANDIDATE_TIMEOUT_S = 60.0  # of a call; the server has just started
NO_REPOSITORY = "A candidate is read from the server's model repository; start the page with --repository."
_packing = threading.Lock()  # it fills the disk meanwhile
_comparing = threading.Lock()  # a server is started for it


async def mark(request: Request) -> Response:
    """Keep that a verdict is wrong."""
    content = await read_json(request)
    inspection, state = await run_in_threadpool(inspection_of, request), state_of(request)
    station, wrong = station_of(request, inspection.category), content.get("wrong")
    if WRONG_OF.get(inspection.outcome) != wrong:
        raise RequestError(
            f"{inspection.name} was judged {inspection.outcome}, which cannot be {str(wrong)[:40]!r}; an escape was "
            "judged good, a false reject was rejected."
        )
    kept = Mark(
        inspection=inspection.id,
        wrong=cast(Wrong, wrong),
        note=text_of(content, "note"),
        mask_png=await to_thread.run_sync(_mask_of, content, inspection, limiter=limits.of(limits.PIXELS)),
        who=person_of(request).name,
        when=datetime.now().astimezone(),
    )
    await run_in_threadpool(marked.keep, state.database, kept)
    await run_in_threadpool(station.tell_changed, inspection.id)
    return JSONResponse({"id": inspection.id})


def unmark(request: Request) -> Response:
    """Take a mark back."""
    inspection, state = inspection_of(request), state_of(request)
    station = station_of(request, inspection.category)
    marked.remove(state.database, inspection.id)
    station.tell_changed(inspection.id)
    return JSONResponse({"id": inspection.id})


def marks(request: Request) -> Response:
    """The marked pictures of a category, the latest first."""
    station, state = station_of(request, request.query_params.get("category")), state_of(request)
    found = marked.all_marked(state.database, station.category)
    base = state.bases.get(station.category)
    return JSONResponse(
        {
            "inspections": [inspection.to_dict() for inspection in found],
            "base": None if base is None else str(base),
            "folder": str(_export_folder(state, station)),
            "fault": None if state.repository else NO_REPOSITORY,
        }
    )


async def export_folder(request: Request) -> Response:
    """Write the marks of a category as a training set into the data folder; new marks are added to it."""
    content = await read_json(request)
    station, state = station_of(request, content.get("category")), state_of(request)
    done = await run_in_threadpool(
        _export, state, station, _export_folder(state, station), base=state.bases.get(station.category)
    )
    return JSONResponse({**asdict(done), "folder": str(done.folder)})


async def download(request: Request) -> Response:
    """The marked pictures in the same layout as a zip, without the images that they are added to."""
    station, state = station_of(request, request.query_params.get("category")), state_of(request)
    if not person_of(request).may_edit:
        raise HTTPException(403, ONLY_LOOK)
    if not _packing.acquire(blocking=False):
        raise RequestError("Another training set is being packed; wait until that is done.")
    try:
        archive = await run_in_threadpool(_pack, state, station)
    finally:
        _packing.release()
    size = archive.seek(0, io.SEEK_END)
    archive.seek(0)

    def parts() -> Iterator[bytes]:
        with archive:
            while part := archive.read(ZIP_PART):
                yield part

    name = f"{station.category}-marks-{datetime.now():%Y%m%d-%H%M%S}.zip"
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(size)}
    return StreamingResponse(parts(), media_type="application/zip", headers=headers)


def _pack(state: State, station: Station) -> IO[bytes]:
    """The training set as a zip, in a file without a name."""
    with (
        storage_errors(state.database.folder),
        tempfile.TemporaryDirectory(prefix=PACKED, dir=state.database.folder) as folder,
    ):
        target = Path(folder) / station.category
        _export(state, station, target, base=None)
        archive = tempfile.TemporaryFile(dir=state.database.folder)  # noqa: SIM115 (closed when it is sent)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(target.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(target.parent))
    return archive


def list_candidates(request: Request) -> Response:
    """Releases of a category that are not live, the latest first."""
    station, state = station_of(request, request.query_params.get("category")), state_of(request)
    found = [] if state.repository is None else candidates(station.category, state.repository)
    rows = [{**asdict(each), "release_id": str(each.release_id)} for each in found]
    return JSONResponse({"candidates": rows})


async def compare_candidate(request: Request) -> Response:
    """Judge the marked pictures by a release that is not live, beside the live one."""
    content, state = await read_json(request), state_of(request)
    station, number = station_of(request, content.get("category")), content.get("number")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RequestError(
            f"The release is {str(number)[:40]!r}; expected its number, as `deploy releases` has it."
        )
    if state.repository is None:
        raise RequestError(NO_REPOSITORY)
    return JSONResponse(await run_in_threadpool(_compare, state, station, number))


def _compare(state: State, station: Station, number: int) -> dict[str, Any]:
    assert state.repository is not None
    if not _comparing.acquire(blocking=False):
        raise RequestError("Another candidate is being compared; wait until that is done.")
    try:
        inspections, pictures = _marked_pictures(state, station)
        if not pictures:
            raise RequestError("No picture is marked; mark a verdict as wrong first.")
        with (
            preview(station.category, number, state.repository) as url,
            JudgeClient(
                url, category=station.category, timeout_s=CANDIDATE_TIMEOUT_S, probe=True
            ) as candidate,
            station.judging() as station_judge,
            # The pictures were counted when they came.
            JudgeClient(
                station_judge.endpoint,
                category=station.category,
                timeout_s=station_judge.timeout_s,
                probe=True,
            ) as live,
        ):
            compared = compare(pictures, live, candidate)
    finally:
        _comparing.release()
    rows = [_compared(inspection, each) for inspection, each in zip(inspections, compared, strict=True)]
    return {
        "rows": rows,
        "put_right": sum(each.put_right for each in compared),
        "made_wrong": sum(each.made_wrong for each in compared),
        "synthetic": station.status.synthetic,
    }


def _compared(inspection: Inspection, each: Compared) -> dict[str, Any]:
    return {
        "id": inspection.id,
        "name": inspection.name,
        "wrong": inspection.wrong,
        "fault": each.fault,
        "trained_on": each.trained_on,
        "live": each.live and {"score": each.live.score, "threshold": each.live.threshold},
        "candidate": each.candidate
        and {"score": each.candidate.score, "threshold": each.candidate.threshold},
        "live_right": each.live_right,
        "candidate_right": each.candidate_right,
    }


def _export(state: State, station: Station, folder: Path, *, base: Path | None) -> Exported:
    _, pictures = _marked_pictures(state, station)
    return export_marks(pictures, folder, base=base)


def _marked_pictures(state: State, station: Station) -> tuple[list[Inspection], list[MarkedPicture]]:
    """The marked pictures that are still there, the first mark first."""
    found = [
        inspection
        for inspection in reversed(marked.all_marked(state.database, station.category))
        if inspection.picture is not None and inspection.score is not None
    ]
    pictures = [
        MarkedPicture(
            path=station.path(inspection),
            category=station.category,
            wrong=cast(Wrong, inspection.wrong),
            note=inspection.note or "",
            mask_png=marked.mask_of(state.database, inspection.id),
            score=cast(float, inspection.score),
            threshold=cast(float, inspection.threshold),
            release_id=cast(int, inspection.release_id),
        )
        for inspection in found
    ]
    return found, pictures


def _export_folder(state: State, station: Station) -> Path:
    return state.database.folder.absolute() / "exports" / station.category


def _mask_of(content: dict[str, Any], inspection: Inspection) -> bytes | None:
    """A drawn mask, checked: a PNG of the picture's size.

    Raises:
        RequestError: it is none.
    """
    text = content.get("mask")
    if text is None:
        return None
    try:
        png = base64.b64decode(str(text), validate=True)
        with open_image(io.BytesIO(png)) as image:
            size, kind = image.size, image.format
            drawn = image.convert("RGBA").convert("L").point(lambda value: 255 if value else 0)
    except (ValueError, SyntaxError, EOFError, struct.error, ImageError, OSError):  # what Pillow raises
        raise RequestError("The drawn mask is no PNG.") from None
    if kind != "PNG" or size != (inspection.width, inspection.height):
        raise RequestError(
            f"The drawn mask is {size[0]} x {size[1]} pixels; expected those of the picture, "
            f"{inspection.width} x {inspection.height}."
        )
    return None if drawn.getbbox() is None else _png(drawn)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("1").save(buffer, "PNG")
    return buffer.getvalue()

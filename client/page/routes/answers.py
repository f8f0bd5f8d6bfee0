"""Requests read within bounds, and errors as one sentence."""

from __future__ import annotations

import io
import json
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from client.core.errors import ClientError, RequestError
from client.files import StorageError
from client.page.access.sessions import Person
from client.page.inspecting.station import Station
from client.page.state import State
from client.page.store import inspections
from client.page.store.inspections import Inspection

LARGEST_JSON = 16 << 20  # bytes; a drawn mask is in it
BAD_REQUEST, CONFLICT, INSUFFICIENT_STORAGE = 400, 409, 507


def state_of(request: Request) -> State:
    """The page's parts."""
    state: State = request.app.state.page
    return state


def person_of(request: Request) -> Person:
    """Who asks; the access check has put it there."""
    person: Person = request.scope["person"]
    return person


def station_of(request: Request, category: Any) -> Station:
    """A category's station.

    Raises:
        RequestError: the page does not show the category.
    """
    stations = state_of(request).stations
    if not isinstance(category, str) or category not in stations:
        raise RequestError(f"The page does not show {category!r}; it shows {', '.join(stations)}.")
    return stations[category]


def inspection_of(request: Request) -> Inspection:
    """The picture that a path names.

    Raises:
        HTTPException: there is none.
    """
    number = request.path_params["inspection"]
    found = inspections.find(state_of(request).database, number)
    if found is None:
        raise HTTPException(404, f"There is no picture {number} here.")
    return found


def number_of(request: Request, name: str) -> float | None:
    """A number among the parameters of an address.

    Raises:
        RequestError: it is none, or not finite.
    """
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{name} is {text[:40]!r}; expected a number.")
    return value


def whole_number_of(request: Request, name: str) -> int | None:
    """A whole number among the parameters of an address, of any length.

    Raises:
        RequestError: it is none.
    """
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) >= 2**63:
        raise RequestError(f"{name} is {text[:40]!r}; expected a whole number.")
    return int(text)


async def read_body(request: Request, limit: int) -> bytes:
    """A request's body.

    Raises:
        HTTPException: it is larger than the limit.
    """
    stated = request.headers.get("content-length", "0")
    content = io.BytesIO()
    if stated.isdecimal() and int(stated) <= limit:
        async for part in request.stream():
            content.write(part)
            if content.tell() > limit:
                break
        else:
            return content.getvalue()  # it is not copied
    raise HTTPException(
        413, f"That is more than {limit >> 20} MB, which is the most that the page takes at a time."
    )


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RequestError: it is none.
    """
    content = await read_body(request, LARGEST_JSON)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError("The request holds no JSON object, which was expected.")
    return value


def text_of(content: dict[str, Any], name: str, *, longest: int = 2000) -> str:
    """A text in a JSON object, without spaces around it; empty where it is missing.

    Raises:
        RequestError: it is no text, too long, or holds half characters.
    """
    value = content.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise RequestError(f"{name} is no text of at most {longest} characters.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RequestError(f"{name} holds half a character (a lone surrogate); expected Unicode text.")
    return value.strip()


def client_error(_request: Request, error: Exception) -> Response:
    """A fault in what was asked for, or of the server behind the page."""
    message = error.message if isinstance(error, ClientError | StorageError) else str(error)
    status = INSUFFICIENT_STORAGE if isinstance(error, StorageError) else BAD_REQUEST
    if isinstance(error, ClientError) and not isinstance(error, RequestError):
        status = CONFLICT
    return JSONResponse({"error": message}, status_code=status)


def http_error(request: Request, error: Exception) -> Response:
    """What is not there, not allowed, or too large."""
    assert isinstance(error, HTTPException)
    detail = f"There is nothing at {request.url.path}." if error.detail == "Not Found" else error.detail
    return JSONResponse({"error": detail}, status_code=error.status_code)


def unexpected(_request: Request, _error: Exception) -> Response:
    """A fault of the page itself, which its log has."""
    return JSONResponse({"error": "The page failed on this; its log says where."}, status_code=500)

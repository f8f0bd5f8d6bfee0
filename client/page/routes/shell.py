"""The pages themselves: a frame each, which its script fills."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from client.core.errors import RequestError
from client.page.routes.answers import read_json, state_of, text_of

FOLDER = Path(__file__).parents[1]
TEMPLATES = Jinja2Templates(
    env=jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
)


@dataclass(frozen=True)
class View:
    """One of the pages.

    Attributes:
        name: of its template and its script.
        title: in its heading and in the menu.
        path: its address.
    """

    name: str
    title: str
    path: str


VIEWS = (
    View("live", "Live", "/"),
    View("threshold", "Threshold", "/threshold"),
    View("marks", "Marks", "/marks"),
    View("history", "History", "/history"),
    View("regions", "Regions", "/regions"),
)
LOOK = View("look", "Look closer", "/look")


def live(request: Request) -> Response:
    """What arrives now."""
    return _view(request, VIEWS[0])


def threshold(request: Request) -> Response:
    """Scores, and where a threshold divides them."""
    return _view(request, VIEWS[1])


def marks(request: Request) -> Response:
    """What people found wrong."""
    return _view(request, VIEWS[2])


def history(request: Request) -> Response:
    """Everything that was judged."""
    return _view(request, VIEWS[3])


def regions(request: Request) -> Response:
    """Where pictures are inspected, drawn on one of them."""
    return _view(request, VIEWS[4])


def look(request: Request) -> Response:
    """One picture from close by."""
    return _view(request, LOOK)


def login(request: Request) -> Response:
    """Where a token is given."""
    if state_of(request).access.tokens is None:
        return RedirectResponse("/", status_code=303)
    return TEMPLATES.TemplateResponse(request, "login.html.j2", {"title": "Log in"})


async def log_in(request: Request) -> Response:
    """Give a token, and get a cookie."""
    content, access = await read_json(request), state_of(request).access
    person = access.log_in(text_of(content, "token"), text_of(content, "name"))
    if person is None:
        raise RequestError("That is neither the viewer's nor the editor's token.")
    response = JSONResponse({"role": person.role.value})
    access.remember(response, person)
    return response


async def log_out(request: Request) -> Response:
    """Give the cookie back."""
    response = JSONResponse({})
    state_of(request).access.forget(response)
    return response


def _view(request: Request, view: View) -> Response:
    state = state_of(request)
    person = request.scope["person"]
    asked = request.query_params.get("category")
    context: dict[str, Any] = {
        "title": view.title,
        "view": view,
        "views": VIEWS,
        "categories": list(state.stations),
        "category": asked if asked in state.stations else next(iter(state.stations)),
        "person": person,
        "tokens": state.access.tokens is not None,
    }
    return TEMPLATES.TemplateResponse(request, f"{view.name}.html.j2", context)

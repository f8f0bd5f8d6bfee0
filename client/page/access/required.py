"""The one place that decides: who may only look changes nothing, and who gave no token sees nothing."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from client.page.access.guard import SAFE_METHODS
from client.page.access.sessions import Access

FOR_ALL = ("/login", "/static/", "/favicon.ico")  # where a token is given, and what that page looks like
ONLY_LOOK = "You may look, and not change anything; log in with the editor's token for that."
OWN = ("/api/logout", "/login")  # changes that concern nobody else


class RequireRole:
    """Lets through who may; `scope["person"]` is who asks."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        person = self._access.person(HTTPConnection(scope))
        scope["person"] = person
        path: str = scope["path"]
        refusal: Response | None = None
        if person is None and not path.startswith(FOR_ALL):
            refusal = _log_in_first(path)
        elif person is not None and not person.may_edit and _changes(scope):
            refusal = JSONResponse({"error": ONLY_LOOK}, status_code=403)
        await (refusal or self._app)(scope, receive, send)


def _changes(scope: Scope) -> bool:
    return scope["method"] not in SAFE_METHODS and scope["path"] not in OWN


def _log_in_first(path: str) -> Response:
    if path.startswith("/api/"):
        return JSONResponse({"error": "Nobody is logged in here; open /login."}, status_code=401)
    return RedirectResponse(f"/login?next={quote(path)}", status_code=303)

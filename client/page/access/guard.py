"""What is refused before any route sees it, and the headers of every answer."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    # Nothing comes from elsewhere, no script or style stands in a page, and no other site frames it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses requests for other hosts' names and changes that another site's page asks for."""

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        """Guard an application.

        Args:
            app: the application.
            loopback: it listens to this machine alone, and answers only to names of it: another site whose name leads
                here (DNS rebinding) is refused.
        """
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if fault := self._fault(scope):
            await JSONResponse({"error": fault}, status_code=403, headers=HEADERS)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _fault(self, scope: Scope) -> str | None:
        """Why a request is refused, if it is."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and _name_of(host) not in LOOPBACK_NAMES:
            return (
                f"This page answers to 127.0.0.1 and localhost, and was asked for as {host[:100]!r}; open it by one of "
                "those names."
            )
        if scope["method"] in SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is None or _place_of(origin) != host:
            return (
                f"Changes are taken from this page alone, and this one came from {(origin or 'nowhere')[:100]!r}; "
                f"a program states its own place with the header Origin: http://{host[:100]}."
            )
        return None


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None

"""Who asks: a signed cookie after a token was given once, or everybody on this machine where there are no tokens."""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import Response

from client.console import printable
from client.page.access.tokens import Role, Tokens

COOKIE = "astmfr_page"
LASTS_S = 30 * 24 * 3600  # a screen at the line is not logged in anew every day
LONGEST_NAME = 60


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        role: what the person may do.
        name: as written under marks and thresholds.
    """

    role: Role
    name: str

    @property
    def may_edit(self) -> bool:
        """Whether the person may retune and mark."""
        return self.role is Role.EDITOR


@dataclass(frozen=True)
class Access:
    """How people are told apart.

    Attributes:
        tokens: None where everybody has one role.
        everybody: that role.
        secure: the page is encrypted, and so the cookie travels no other way.
    """

    tokens: Tokens | None
    everybody: Role
    secure: bool

    def person(self, connection: HTTPConnection) -> Person | None:
        """Who asks; None for who has to give a token first."""
        if self.tokens is None:
            return Person(self.everybody, _user())
        return _read(connection.cookies.get(COOKIE, ""), self.tokens.secret)

    def log_in(self, token: str, name: str) -> Person | None:
        """Who has this token, under a name that the person gives; None for nobody."""
        role = None if self.tokens is None else self.tokens.role_of(token)
        if role is None:
            return None
        return Person(role, printable(" ".join(name.split()))[:LONGEST_NAME] or role.value)

    def remember(self, response: Response, person: Person) -> None:
        """Put a signed cookie into an answer."""
        if self.tokens is None:
            return
        content = {"role": person.role.value, "name": person.name, "until": int(time.time()) + LASTS_S}
        payload = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        response.set_cookie(
            COOKIE,
            f"{payload}.{_sign(payload, self.tokens.secret)}",
            max_age=LASTS_S,
            httponly=True,
            samesite="strict",
            secure=self.secure,
        )

    def forget(self, response: Response) -> None:
        """Take the cookie away."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=self.secure)


def _read(cookie: str, secret: bytes) -> Person | None:
    payload, _, signature = cookie.partition(".")
    if not hmac.compare_digest(signature.encode(), _sign(payload, secret).encode()):
        return None
    content = json.loads(base64.urlsafe_b64decode(payload))
    if content["until"] < time.time():
        return None
    return Person(Role(content["role"]), content["name"])


def _sign(payload: str, secret: bytes) -> str:
    return hmac.new(secret, payload.encode(), hashlib.sha256).hexdigest()


def _user() -> str:
    """The name of who runs the page."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has none
        return str(os.getuid())

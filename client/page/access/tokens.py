"""Two tokens from a file: who has the viewer's may look, who has the editor's may also retune and mark."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from client.core.errors import RequestError
from model_repository.grpc_endpoint import read_key_file

FORM = re.compile(r"[A-Za-z0-9_-]{16,256}")  # 16 of these 64 characters are 96 bits
RECIPE = '(umask 077; for r in viewer editor; do echo "$r=$(openssl rand -hex 16)"; done > page.tokens)'


class Role(Enum):
    """What a person may do."""

    VIEWER = "viewer"
    EDITOR = "editor"


@dataclass(frozen=True)
class Tokens:
    """The two tokens; they are compared in constant time."""

    viewer: str = field(repr=False)
    editor: str = field(repr=False)

    def role_of(self, token: str) -> Role | None:
        """Whose token it is; None for nobody's."""
        given = token.strip().encode()
        roles = {Role.VIEWER: self.viewer, Role.EDITOR: self.editor}
        fits = {role: hmac.compare_digest(given, known.encode()) for role, known in roles.items()}
        return next((role for role, fit in fits.items() if fit), None)

    @property
    def secret(self) -> bytes:
        """What sessions are signed with: other tokens end them."""
        return hashlib.sha256(f"sessions of {self.viewer} {self.editor}".encode()).digest()


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file with the lines `viewer=<token>` and `editor=<token>`.

    Raises:
        RequestError: it cannot be read, is open to everybody, or does not hold two such tokens.
    """
    try:
        found = read_key_file(path)
    except ValueError as error:
        raise RequestError(str(error)) from None
    for role in Role:
        token = found.get(role.value)
        if token is None:
            raise RequestError(f"{path} holds no {role.value}=<token>; make one with both: {RECIPE}.")
        if FORM.fullmatch(token) is None:
            raise RequestError(
                f"The {role.value}'s token in {path} has {len(token)} characters; expected 16 to 256 letters, digits, "
                f"- and _: {RECIPE}."
            )
    if found["viewer"] == found["editor"]:
        raise RequestError(
            f"Viewer and editor have the same token in {path}; whoever may look could retune: {RECIPE}."
        )
    return Tokens(found["viewer"], found["editor"])

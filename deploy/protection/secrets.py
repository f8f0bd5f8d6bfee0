"""The admin key: the word that opens model control, statistics, shared memory, traces and logs to who knows it.

Server and clients read it from the same file or variable, see `model_repository.grpc_endpoint`: `astmfr-admin=<word>`.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from deploy.errors import ProtectionError
from model_repository.grpc_endpoint import KEY_FILE, KEYS, read_key_file, read_keys

NAME = "astmfr-admin"  # the header over HTTP; over gRPC Triton puts a prefix before it
# Triton splits its options at commas, colons and equals signs. 16 letters of these 64 are 96 bits.
FORM = re.compile(r"[A-Za-z0-9_-]{16,256}")
RECIPE = f'(umask 077; echo "{NAME}=$(openssl rand -hex 32)" > admin.key)'


def new_key() -> str:
    """A random key that nobody else knows."""
    return secrets.token_urlsafe(32)


def read_admin_key(path: Path | None = None) -> str | None:
    """The admin key of a file, else of those that the environment names; None where there is neither.

    Raises:
        ProtectionError: the file cannot be read, is open to everybody, or holds no such key.
    """
    if path is None and os.environ.get(KEY_FILE):
        path = Path(os.environ[KEY_FILE])
    try:
        if path is not None:
            keys, where = read_key_file(path), str(path)
        elif os.environ.get(KEYS):
            keys, where = read_keys(os.environ[KEYS].replace(",", "\n"), KEYS), KEYS
        else:
            return None
    except ValueError as error:
        raise ProtectionError(str(error)) from None
    if NAME not in keys:
        raise ProtectionError(f"{where} holds no {NAME}=<key>; make one: {RECIPE}.")
    if FORM.fullmatch(keys[NAME]) is None:
        raise ProtectionError(
            f"The {NAME} of {where} has {len(keys[NAME])} characters; expected 16 to 256 letters, digits, - and _: "
            f"{RECIPE}."
        )
    return keys[NAME]


def admin_headers(path: Path | None) -> dict[str, str]:
    """What opens a server's controls over HTTP: the key of `read_admin_key`; nothing where there is none."""
    key = read_admin_key(path)
    return {} if key is None else {NAME: key}


def redacted(command: str) -> str:
    """A command line for a log, without the key in it."""
    return re.sub(rf"({NAME}=)\S+", r"\1***", command)

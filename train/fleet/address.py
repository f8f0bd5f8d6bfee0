"""Where a cluster of Ray answers, by which token it obeys, and whether this machine can give it tasks."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from train.errors import ConfigError

CONNECT_S = 5.0
JOIN_S = 60.0
JOIN_TRIES = "3"  # a second each, where a cluster answers and refuses
# In a process of its own: where something else than Ray answers, Ray waits for minutes and cannot be interrupted.
JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    said = str(error.__cause__ or error)
    lines = said.strip().splitlines()
    sys.exit(lines[-1].strip() if "Traceback (most" in said else " ".join(said.split()))
"""
MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN_FILE = "~/.ray/auth_token"
TOKEN_BYTES = 32
OF_TOKENS = (
    "InvalidAuthToken",
    "AuthenticationError",
    "authentication token",
    TOKEN,
)  # in what Ray says of them


def make_token() -> None:
    """Let a Ray that is started here obey this process and its own alone; Ray's own token would be a file at home."""
    os.environ.update({MODE: "token", TOKEN: secrets.token_hex(TOKEN_BYTES)})


def _token_place() -> str:
    """Where Ray looks for its token, first of all first; empty where there is none."""
    if os.environ.get(TOKEN):
        return TOKEN
    if path := os.environ.get(TOKEN_PATH):
        return path
    return TOKEN_FILE if Path(TOKEN_FILE).expanduser().is_file() else ""


def find_cluster(address: str) -> str:
    """The address of a cluster, after something has answered there.

    Args:
        address: `auto` is that of RAY_ADDRESS, or of the cluster that was started on this machine last.

    Raises:
        ConfigError: there is none.
    """
    remedy = "start one with `ray start --head`, or leave --address out to use this machine alone"
    found = address
    if address == "auto":
        found = os.environ.get("RAY_ADDRESS") or _current_cluster()
        if not found:
            raise ConfigError(f"No Ray cluster runs on this machine, and RAY_ADDRESS names none; {remedy}.")
    host, colon, port = found.rpartition(":")
    if "//" in found or not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(
            f"--address {found!r} is no address of a Ray cluster; expected auto or host:port, as `ray start` prints it."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"No Ray cluster answers at {found} ({error.strerror or error}); {remedy}."
        ) from None
    return found


def _current_cluster() -> str:
    """What `ray start` wrote down on this machine; empty where there is none."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def require_cluster(address: str, *, within_s: float = JOIN_S) -> None:
    """Make sure that this machine can give tasks to the cluster at an address; where it asks for a token, send that.

    Raises:
        ConfigError: it cannot, or not within so many seconds; or the cluster has another Ray, Python or token.
    """
    reason, said = _join(address, within_s)
    # Ray sends a token only where it is told to, and a cluster without one cannot answer a driver that asks for it.
    if _is_of_tokens(said) and _token_place() and MODE not in os.environ:
        os.environ[MODE] = "token"
        reason, said = _join(address, within_s)
    if not reason:
        return
    if "Version mismatch" in reason:
        raise ConfigError(
            f"The cluster at {address} has another Ray or Python than this machine: {reason}; install the same on all "
            "machines."
        )
    if _is_of_tokens(said):
        raise ConfigError(f"The Ray cluster at {address} asks for its token, {_what_lacks()}.")
    raise ConfigError(
        f"The Ray cluster at {address} cannot be used from this machine ({reason}); it has to be one of the cluster's: "
        "join it with `ray start --address`."
    )


def _join(address: str, within_s: float) -> tuple[str, str]:
    """Why a process of its own cannot join, empty where it can; and all that Ray says."""
    command = [sys.executable, "-c", JOIN, address]
    environment = {**os.environ, "RAY_NUM_REDIS_GET_RETRIES": JOIN_TRIES}
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=within_s, env=environment)
    except subprocess.TimeoutExpired as error:
        return f"no answer of Ray's within {within_s:g} s", _decoded(error.stderr)
    said = _decoded(done.stderr)
    lines = said.strip().splitlines() or ["no reason given"]
    return "" if done.returncode == 0 else lines[-1][:300], said


def _is_of_tokens(said: str) -> bool:
    return any(word in said for word in OF_TOKENS)


def _decoded(said: bytes | None) -> str:
    return (said or b"").decode("utf-8", errors="replace")


def _what_lacks() -> str:
    """What is wrong with this machine's token, and what to do."""
    remedy = f"copy {TOKEN_FILE} of its head node to the same place here, or set {TOKEN}"
    place, mode = _token_place(), os.environ.get(MODE, "token")
    if mode.lower() != "token":
        return f"and {MODE}={mode} sends none; set it to token"
    return f"and that of {place} is not it; {remedy}" if place else f"and there is none here; {remedy}"

"""Commands of `deploy`, each in a process of its own: the client imports nothing of it, and it need not be installed.

Certificates, keys and the key that signs are those of this process's environment (`ASTMFR_TLS_CA`, `ASTMFR_KEY_FILE`,
`ASTMFR_SIGNING_KEY`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.core.errors import ClientError

END_TIMEOUT_S = 5.0
INSTALL = "install it with `pip install 'astmfr[deploy]'`, or do it where the server runs"


def ask_deploy(verb: str, category: str, repository: Path, *options: str, timeout_s: float) -> Any:
    """What a command of `deploy` about a category says with `--json`.

    What it says counts though it fails afterwards: `releases` ends with an exit code where one record is damaged.

    Raises:
        ClientError: it failed; the sentence is its own.
        subprocess.TimeoutExpired: it took longer, and was ended.
    """
    where = [f"--category={category}", f"--repository={repository.absolute()}"]
    process = start_python(["-m", "deploy", verb, *where, *options, "--json"], stdin=subprocess.DEVNULL)
    with process:
        try:
            answer, errors = process.communicate(timeout=timeout_s)
        except BaseException:
            end(process)
            raise
    try:
        return json.loads(answer)
    except ValueError:
        if process.returncode != 0:
            raise ClientError(failure_of(errors, f"deploy {verb}", process.returncode)) from None
        raise ClientError(
            f"`python -m deploy {verb}` said no JSON; install client and deploy of one version."
        ) from None


def list_releases(category: str, repository: Path, *, timeout_s: float) -> list[dict[str, Any]]:
    """The releases of a category whose records can be read, as `deploy releases --json` has them, by number.

    Raises:
        ClientError: there is no release, no repository, or `deploy` is not installed.
        subprocess.TimeoutExpired: it took longer, and was ended.
    """
    answer = ask_deploy("releases", category, repository, timeout_s=timeout_s)
    if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
        raise ClientError(
            "`python -m deploy releases` listed no releases; install client and deploy of one version."
        )
    return [entry for entry in answer if entry.get("release_id") is not None]


def start_python(arguments: Sequence[str], *, stdin: int) -> subprocess.Popen[str]:
    """Start this Python with such arguments, in a session of its own.

    Raises:
        ClientError: it cannot be started.
    """
    try:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClientError(f"`python {' '.join(arguments[:3])}` cannot be started ({reason}).") from None


def end(process: subprocess.Popen[Any], timeout_s: float = END_TIMEOUT_S) -> None:
    """Ask a process to end, and kill it where it does not."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failure_of(errors: str, command: str, exit_code: int) -> str:
    """Why a command of `deploy` failed, in its own sentence where it said one."""
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
    _, marked, sentence = errors.rpartition("Error: ")
    missing = "No module named " in last
    if missing:
        what = (
            "deploy" if "No module named deploy" in last else last.partition("No module named ")[2].strip("'")
        )
        return f"`python -m {command}` cannot run here, since {what} is not installed; {INSTALL}."
    if marked and "Traceback (most recent call last)" not in errors:
        return " ".join(sentence.split())
    ending = f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"
    return f"`python -m {command}` failed ({ending}{': ' + last if last else ''})."

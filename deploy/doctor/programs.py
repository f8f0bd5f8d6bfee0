"""Ask another program, and wait no longer than a person would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PROGRAM_TIMEOUT_S = 10


def program_says(*command: str | os.PathLike[str]) -> str:
    """What a program prints.

    Raises:
        OSError: it cannot be started, takes too long, or fails; with its own words.
    """
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=PROGRAM_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{Path(command[0]).name} did not answer within {PROGRAM_TIMEOUT_S} s") from None
    if answer.returncode != 0:
        words = (
            answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.returncode}"
        ).splitlines()
        raise OSError(f"{Path(command[0]).name}: {words[0].rstrip('.')}")
    return answer.stdout.strip()

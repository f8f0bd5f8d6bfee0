"""The server's log: opened, and read for what its index lacks: load times, and why a model was not even tried."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from deploy.errors import ServerError
from deploy.supervision.rotating_file import RotatingFile

LOG_BYTES = 20 << 20
LOG_FILES = 5

# I1123 20:42:08.006364 5026 model_lifecycle.cc:472] "loading: identity:1"
LINE = re.compile(r'^([IWEF])(?P<time>\d{4} [\d:.]+) \d+ [^\]]+\] "?(?P<message>.*?)"?$', re.MULTILINE)
LOADING = re.compile(r"loading: (?P<model>.+):\d+")
ENDED = re.compile(r"(?:successfully loaded|failed to load) '(?P<model>.+?)'")
LOADED = re.compile(r"successfully loaded '(?P<model>.+)'")


def require_file(log: Path) -> None:
    """Make sure that a log is a file, or none yet.

    Raises:
        ServerError: it is a folder or a device.
    """
    if log.exists() and not log.is_file():
        raise ServerError(f"log {log} is no file; give one with --log.")


def open_log(log: Path, header: str, *, again: bool = False) -> RotatingFile:
    """A log to append to, after its header; it is not overwritten, as another server may be writing to the same file.

    Args:
        log: the file; beside it lie up to LOG_FILES - 1 older ones, LOG_BYTES each.
        header: its first line.
        again: of a server that serves already, and goes on serving when the disk is full.

    Raises:
        ServerError: the file cannot be written.
    """
    output = RotatingFile(log, max_bytes=LOG_BYTES, keep=LOG_FILES - 1)
    first = header.encode(errors="replace")
    if again:
        output.write(first)
        return output
    try:
        require_file(log)
        output.append(first)
    except OSError as error:
        output.close()
        raise _unwritable(log, error) from None
    return output


def _unwritable(log: Path, error: OSError) -> ServerError:
    return ServerError(
        f"log {log} cannot be written ({error.strerror or error}); make room, or give another with --log."
    )


def load_times_s(log: str) -> dict[str, float]:
    """Seconds that each model took to load, warm-up included, by name; models still loading are left out."""
    begun: dict[str, datetime] = {}
    taken: dict[str, float] = {}
    for line in LINE.finditer(log):
        if loading := LOADING.fullmatch(line["message"]):
            begun.setdefault(loading["model"], _time(line["time"]))
        elif (loaded := LOADED.fullmatch(line["message"])) and loaded["model"] in begun:
            taken[loaded["model"]] = (_time(line["time"]) - begun[loaded["model"]]).total_seconds()
    return taken


def being_loaded(log: str) -> list[str]:
    """The models whose loading has begun and not ended, when the log ends."""
    begun = {
        loading["model"] for line in LINE.finditer(log) if (loading := LOADING.fullmatch(line["message"]))
    }
    ended = {ended["model"] for line in LINE.finditer(log) if (ended := ENDED.match(line["message"]))}
    return sorted(begun - ended)


def reason_in_log(log: str, model: str) -> str:
    """First error that names the model; empty when there is none."""
    errors = (line["message"] for line in LINE.finditer(log) if line[1] in "EF")
    return next((one_line(message) for message in errors if f"'{model}'" in message), "")


def last_words(log: str) -> str:
    """Message of the last line with a word in it."""
    last = next((line for line in reversed(log.splitlines()) if re.search(r"\w", line)), "it wrote nothing")
    logged = LINE.match(last)
    return one_line(logged["message"] if logged else last)


def one_line(text: str) -> str:
    r"""A message of several lines, or one that writes line ends as `\n`, as one line without a full stop."""
    return " ".join(text.replace("\\n", " ").split()).rstrip(";. ")


def _time(month_to_microsecond: str) -> datetime:
    # The log writes no year; a leap year takes every day.
    return datetime.strptime("2000" + month_to_microsecond, "%Y%m%d %H:%M:%S.%f")

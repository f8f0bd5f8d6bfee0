"""The server's log: opened, and read for what its index lacks: load times, and why a model was not even tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import FileIO
from pathlib import Path

from deploy.errors import ServerError

# I1123 20:42:08.006364 5026 model_lifecycle.cc:472] "loading: identity:1"
LINE = re.compile(r'^([IWEF])(?P<time>\d{4} [\d:.]+) \d+ [^\]]+\] "?(?P<message>.*?)"?$', re.MULTILINE)
LOADING = re.compile(r"loading: (?P<model>.+):\d+")
LOADED = re.compile(r"successfully loaded '(?P<model>.+)'")


@contextmanager
def open_log(log: Path, header: str) -> Iterator[FileIO]:
    """A log to append to, after its header; it is not overwritten, as another server may be writing to the same file.

    Raises:
        ServerError: the file cannot be written.
    """
    try:
        if log.exists() and not log.is_file():
            raise ServerError(f"log {log} is no file; give one with --log.")
        log.parent.mkdir(parents=True, exist_ok=True)
        output = FileIO(log, "ab")
    except OSError as error:
        raise _unwritable(log, error) from None
    with output:
        try:
            output.write(header.encode(errors="replace"))
        except OSError as error:
            raise _unwritable(log, error) from None
        yield output


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

"""Read from the server's log what its index lacks: load times, and why a model was not even tried."""

from __future__ import annotations

import re
from datetime import datetime

# I1123 20:42:08.006364 5026 model_lifecycle.cc:472] "loading: identity:1"
LINE = re.compile(r'^([IWEF])(?P<time>\d{4} [\d:.]+) \d+ [^\]]+\] "?(?P<message>.*?)"?$', re.MULTILINE)
LOADING = re.compile(r"loading: (?P<model>.+):\d+")
LOADED = re.compile(r"successfully loaded '(?P<model>.+)'")


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

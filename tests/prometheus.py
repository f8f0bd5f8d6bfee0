"""A real Prometheus, of Debian's package, that watches what is served here by the rules as they are shipped.

Their hours are too long for a test. `running_prometheus` takes a copy of the shipped files in which an hour is made
some seconds, and so every window and delay with it; expressions, limits and labels stay as they are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from client.page.deploy_commands import end
from deploy.ports import Ports, claim_ports
from tests.products import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
PROGRAM = shutil.which("prometheus")
SCRAPE_S = 0.5
LEAST_WINDOW_S = 4 * SCRAPE_S  # a rate needs two scrapes, one of which may be late
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
START_S = 30
STOP_S = 10


class PrometheusError(Exception):
    """Prometheus did not start, or has no answer to an expression."""


@dataclass(frozen=True)
class Series:
    """A series as Prometheus answers it.

    Attributes:
        labels: its name among them, as `__name__`.
        points: seconds since 1970, and the value; one point for an instant.
    """

    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """The last one."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Prometheus:
    """One that runs; `url` is its root."""

    url: str

    def query(self, expression: str) -> list[Series]:
        """What an expression comes to now; a number is one series without labels."""
        data = self._ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [Series({}, [_point(data["result"])])]
        return [Series(each["metric"], [_point(each["value"])]) for each in data["result"]]

    def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """What it came to from one time to another, seconds since 1970."""
        data = self._ask("query_range", query=expression, start=start_s, end=end_s, step=step_s)
        return [Series(each["metric"], [*map(_point, each["values"])]) for each in data["result"]]

    def firing(self) -> list[dict[str, str]]:
        """The labels of each alert that fires."""
        alerts = self._ask("alerts")["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def _ask(self, what: str, **parameters: Any) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            said = json.load(error)
            raise PrometheusError(
                f"{parameters.get('query')}: {said['errorType']}: {said['error']}"
            ) from None
        if warnings := answer.get("warnings"):
            raise PrometheusError(f"{parameters.get('query')}: {warnings}")
        return answer["data"]


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str], *, hour_s: float) -> Iterator[Prometheus]:
    """A Prometheus over `host:port` targets for the length of a `with` block, with hours of so many seconds.

    Raises:
        PrometheusError: it is not installed, or does not start; its last words say why.
    """
    if PROGRAM is None:
        raise PrometheusError("prometheus is not on PATH; install Debian's package prometheus.")
    config = write_config(folder, targets, hour_s=hour_s)
    host = "127.0.0.1"
    port = claim_ports(host, Ports(http=0, grpc=0, metrics=0)).http
    log = folder / "prometheus.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address={host}:{port}",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, f"http://{host}:{port}/-/ready", log)
        yield Prometheus(f"http://{host}:{port}")
    finally:
        end(process, STOP_S)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(encoding="utf-8").splitlines()[-3:]
            raise PrometheusError(f"prometheus did not become ready: {' | '.join(words)}")
        time.sleep(0.05)


def write_config(folder: Path, targets: Sequence[str], *, hour_s: float) -> Path:
    """The shipped configuration and rules for these targets, sooner; returns the configuration's path."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": f"{1000 * SCRAPE_S:.0f}ms", "evaluation_interval": "500ms"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [*targets]}]
    (folder / "rules").mkdir()
    for path in (MONITORING / "rules").glob("*.yaml"):
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))
        text = yaml.safe_dump(sooner(groups, hour_s), sort_keys=False, width=1000)
        (folder / "rules" / path.name).write_text(text, encoding="utf-8")
    config["rule_files"] = [str(folder / "rules" / "*.yaml")]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def sooner(groups: dict[str, Any], hour_s: float) -> dict[str, Any]:
    """The same rules with an hour of so many seconds."""
    return {
        "groups": [
            {**group, "rules": [_sooner(rule, hour_s) for rule in group["rules"]]}
            for group in groups["groups"]
        ]
    }


def _sooner(rule: dict[str, Any], hour_s: float) -> dict[str, Any]:
    changed = {**rule, "expr": shorten_windows(rule["expr"], hour_s)}
    if "for" in rule:
        changed["for"] = _shorter(rule["for"], hour_s, least_s=0)
    return changed


def shorten_windows(expression: str, hour_s: float) -> str:
    """An expression whose windows and offsets are those of an hour of so many seconds."""
    return re.sub(
        r"(\[|\boffset )(\d+[smhd])",
        lambda found: found[1] + _shorter(found[2], hour_s, least_s=LEAST_WINDOW_S),
        expression,
    )


def _shorter(duration: str, hour_s: float, *, least_s: float) -> str:
    """`10m`, say, where an hour has so many seconds."""
    seconds = int(duration[:-1]) * UNITS_S[duration[-1]] * hour_s / 3600
    return f"{1000 * max(seconds, least_s):.0f}ms"

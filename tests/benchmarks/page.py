"""Does the page keep up with 200 pictures a minute, and open 100,000 in a second? `make bench-all WHAT=page`.

A real server judges, and Debian's chromium shows. From arrival to shown: from the moment that a picture is sent to the
page to the moment that the browser has drawn it with its map, by the clock of this one machine.
"""

from __future__ import annotations

import argparse
import http.client
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from client.benchmark.bars import Bar
from client.page.inspecting.views import thumbnail
from client.page.store.database import Database
from client.pictures.folders import find_images
from client.pictures.images import load_image
from export.manifest import read_manifest
from tests.benchmarks.releases import publish, serving
from tests.benchmarks.results import FOLDER, build_parser, run, write_results
from tests.products import ROOT, copy_backends

ROWS = 100_000
RELEASE = 4_711
SMOOTH_FRAME_MS = 100.0  # a longer pause between two frames is seen
MOST_SHOWN_MS, MOST_OPEN_MS, MOST_LONG_TASKS_SHARE = 1000.0, 1000.0, 0.05
WATCH_FRAMES = """
() => {
  window.frames_ms = []; window.long_ms = [];
  const keep = (list) => list.getEntries().forEach((entry) => long_ms.push(entry.duration));
  new PerformanceObserver(keep).observe({ type: "longtask" });
  let last = performance.now();
  const next = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}
"""
SHOWN = """
() => performance.getEntriesByName("shown").map((mark) => [mark.detail, performance.timeOrigin + mark.startTime])
"""


@dataclass(frozen=True)
class Flow:
    """Pictures at an even pace.

    Attributes:
        sent, shown: pictures; one that is overtaken by the next before it is drawn is not shown large.
        median_ms, p95_ms, highest_ms: from arrival to shown.
        long_tasks, long_tasks_share: tasks of the browser's main thread above 50 ms, and their share of the time.
        frames_missed: pauses between frames above 100 ms.
    """

    sent: int
    shown: int
    median_ms: float
    p95_ms: float
    highest_ms: float
    long_tasks: int
    long_tasks_share: float
    frames_missed: int


@contextmanager
def paging(*options: object) -> Iterator[str]:
    """The page as a process; its address."""
    command = [sys.executable, "-m", "client", "page", "--listen", "127.0.0.1:0", *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            (address,) = re.findall(r"http://\S+(?=/;)", process.stdout.readline())
            yield address
        finally:
            process.send_signal(signal.SIGTERM)


def send(
    address: str, category: str, pictures: Sequence[bytes], *, count: int, pace_s: float
) -> dict[int, float]:
    """Send pictures at an even pace; when each was sent, seconds since 1970, by its id."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place)
    sent: dict[int, float] = {}
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number * pace_s - time.monotonic()))
        now = time.time()
        target = f"/api/pictures?category={category}&name=part-{number}.png"
        connection.request("POST", target, pictures[number % len(pictures)], {"Origin": address})
        answer = connection.getresponse().read()
        sent[int(re.findall(rb"\d+", answer)[0])] = now
    connection.close()
    return sent


def measure_flow(
    tab: Page, address: str, category: str, pictures: Sequence[bytes], a_minute: int, count: int
) -> Flow:
    """Send pictures while a browser shows them live."""
    tab.goto(f"{address}/?category={category}")
    tab.wait_for_selector("#link[data-state=up]")
    tab.evaluate(WATCH_FRAMES)
    sent: dict[int, float] = {}
    sending = threading.Thread(
        target=lambda: sent.update(send(address, category, pictures, count=count, pace_s=60 / a_minute))
    )
    sending.start()
    while sending.is_alive():
        tab.wait_for_timeout(500)
    tab.wait_for_timeout(1500)
    taken = sorted(at - 1000 * sent[number] for number, at in tab.evaluate(SHOWN) if number in sent)
    long_ms, frames_ms = tab.evaluate("() => [long_ms, frames_ms]")
    return Flow(
        sent=len(sent),
        shown=len(taken),
        median_ms=statistics.median(taken),
        p95_ms=taken[int(0.95 * (len(taken) - 1))],
        highest_ms=taken[-1],
        long_tasks=len(long_ms),
        long_tasks_share=sum(long_ms) / sum(frames_ms),
        frames_missed=sum(frame > SMOOTH_FRAME_MS for frame in frames_ms),
    )


def fill(folder: Path, category: str, jpeg: bytes) -> None:
    """A history of ROWS pictures, one a second until now; every 20th is rejected, every 500th marked."""
    database = Database(folder)
    now = time.time()
    rows = [
        (
            category, f"part-{number:06}.png", "dropped", now - ROWS + number, "reject" if number % 20 == 0 else "good",
            0.5 + number % 97 / 97 if number % 20 else 2.0, 1.5, RELEASE, 12.5, 640, 480,
            '[{"left": 1, "top": 1, "width": 9, "height": 9, "area": 81, "peak": 3.0, "mean": 2.0}]',
            81 + number % 1000, number,
        )
        for number in range(1, ROWS + 1)
    ]  # fmt: skip
    with database.write() as connection:
        connection.executemany(
            "INSERT INTO inspections (category, name, source, arrived_at, outcome, score, threshold, release_id, "
            "latency_ms, width, height, defects, largest_defect, changed, synthetic) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            rows,
        )
        connection.execute("INSERT INTO thumbnails SELECT id, ? FROM inspections", (jpeg,))
        connection.execute(
            "INSERT INTO marks (inspection, wrong, note, who, made_at) "
            "SELECT id, 'escape', '', 'Ann', arrived_at FROM inspections WHERE id % 500 = 1"
        )
    database.close()


def measure_history(tab: Page, address: str, category: str) -> dict[str, float]:
    """Milliseconds from opening an address to its rows being there, by what is asked for; medians of 5."""
    history = f"{address}/history?category={category}"
    asked = {
        "the history": history,
        "rejects": f"{history}&outcome=reject",
        "defects above 1,000 pixels": f"{history}&defect_from=1000",
        "marked": f"{history}&marked=any",
        "a name": f"{history}&name=part-000123",
        "the threshold's histogram": f"{address}/threshold?category={category}",
    }
    taken = {}
    for name, place in asked.items():
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            tab.goto(place, wait_until="commit")
            tab.wait_for_selector("body[data-ready=yes]")
            times.append(1000 * (time.perf_counter() - begun))
        taken[name] = statistics.median(times)
    return taken


def bars_of(flow: Flow, opened: dict[str, float]) -> list[Bar]:
    """What the page is held to."""
    limits = [
        ("from arrival to shown, p95, ms", flow.p95_ms, MOST_SHOWN_MS),
        ("long tasks' share of the time", flow.long_tasks_share, MOST_LONG_TASKS_SHARE),
        *((f"{name} of 100,000, ms", taken_ms, MOST_OPEN_MS) for name, taken_ms in opened.items()),
    ]
    return [Bar(name=name, value=value, limit=limit, at_most=True) for name, value, limit in limits]


def parse_arguments() -> argparse.Namespace:
    """What is served, and how fast pictures come."""
    parser = build_parser(__doc__)
    parser.add_argument("--a-minute", type=int, default=200, help="pictures")
    parser.add_argument("--count", type=int, default=200, help="pictures that are sent")
    parser.add_argument("--json", type=Path, default=FOLDER / "page.json", help="gets the results")
    return parser.parse_args()


def main() -> None:
    """Serve a build, send pictures, fill a history, and print how the page did."""
    asked = parse_arguments()
    console = Console(width=120, highlight=False)
    category = read_manifest(asked.build).category
    paths = [image.path for image in find_images([asked.images]).images]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        repository = copy_backends(folder / "model_repository")
        publish(asked.build, repository)
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1440, "height": 900})
        with serving(repository, log=folder / "tritonserver.log") as server:
            options = ("--category", category, "--url", server.grpc_url)
            with paging(*options, "--data", folder / "live") as address:
                pictures = [path.read_bytes() for path in paths]
                flow = measure_flow(tab, address, category, pictures, asked.a_minute, asked.count)
        fill(folder / "filled", category, thumbnail(load_image(paths[0])))
        with paging("--category", category, "--data", folder / "filled") as address:
            opened = measure_history(tab, address, category)
        chromium.close()
    table = Table("measured", "value", title=f"{asked.a_minute} pictures a minute; {ROWS:,} in the history")
    for key, value in (*asdict(flow).items(), *opened.items()):
        table.add_row(key, f"{value:,.3g}" if isinstance(value, float) else str(value))
    console.print(table)
    bars = bars_of(flow, opened)
    for bar in bars:
        console.print(str(bar))
    write_results(asked.json, {"category": category, "flow": asdict(flow), "opened_ms": opened}, bars)


if __name__ == "__main__":
    run(main)

"""The page in a real browser, over the real server: what a person at the line does with it, start to end."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from client import JudgeClient
from deploy.server import TritonServer, running_server
from tests.client.page.desk import TOKENS
from tests.conftest import CATEGORY
from tests.products import ROOT, TIMEOUT_S, copy_backends
from tests.tiny_products import publish_tiny
from train.data.category import CategoryData
from train.data.regions import read_regions

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium; apt-get install chromium"),
]

VIEWS = ("/", "/threshold", "/marks", "/history", "/regions", "/look/1")
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
DROP = """
([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
}
"""


@dataclass
class Line:
    """A server, a page over it, and a browser's tab on that.

    Attributes:
        faults: what the browser's console said is wrong.
    """

    server: TritonServer
    url: str
    folder: Path
    context: BrowserContext
    tab: Page
    faults: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        self.tab.goto(f"{self.url}{path}")

    def get(self, path: str) -> Any:
        return self.context.request.get(f"{self.url}{path}").json()

    def judge(self) -> JudgeClient:
        return JudgeClient(self.server.grpc_url, category=CATEGORY, timeout_s=TIMEOUT_S)

    def new_tab(self) -> Page:
        tab = self.context.new_page()
        tab.on("console", self._listen)
        tab.on("pageerror", lambda error: self.faults.append(str(error)))
        return tab

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def line(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("page")
    repository = copy_backends(folder / "model_repository")
    publish_tiny(tiny_build / CATEGORY, repository)
    with running_server(
        repository=repository, log=folder / "triton.log", triton_env=ROOT / ".triton"
    ) as server:
        options = ("--url", server.grpc_url, "--data", folder / "data", "--repository", repository)
        with paging(*options) as url:
            context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
            opened = Line(server, url, folder, context, None)  # type: ignore[arg-type]
            opened.tab = opened.new_tab()
            yield opened
            context.close()
    shutil.rmtree(folder)


@contextmanager
def paging(*options: object) -> Iterator[str]:
    """The page as a process; its address. It ends in order on Ctrl-C."""
    command = [sys.executable, "-m", "client", "page", "--category", CATEGORY, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, *map(str, options)], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        (url,) = re.findall(r"http://\S+(?=/;)", process.stdout.readline())
        yield url
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def drop(tab: Page, path: Path, name: str) -> None:
    tab.evaluate(DROP, [name, base64.b64encode(path.read_bytes()).decode()])


def judged(line: Line) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = line.get(f"/api/history?category={CATEGORY}")["inspections"]
    return rows


def test_a_dropped_picture_is_judged_and_shown(line: Line, tiny_data: CategoryData) -> None:
    line.open("/")
    path = tiny_data.test[0].path
    drop(line.tab, path, "<b>first.png")
    line.tab.wait_for_selector("#verdict[data-outcome=good], #verdict[data-outcome=reject]")
    with line.judge() as judge:
        verdict = judge.judge(path)
    word = "REJECT" if verdict.anomalous else "GOOD"
    expect(line.tab.locator("#verdict-word")).to_have_text(word)
    expect(line.tab.locator("#gauge b")).to_have_text(f"{verdict.score:#.4g}")
    expect(line.tab.locator("#picture-name")).to_have_text("<b>first.png")  # as text
    expect(line.tab.locator("#facts")).to_contain_text(str(verdict.release_id))
    expect(line.tab.locator("#synthetic")).to_be_visible()  # trained on rendered images, and says so
    expect(line.tab.locator("#strip .thumb")).to_have_count(1)
    colours = line.tab.evaluate(
        "() => new Set(document.getElementById('overlay').getContext('2d').getImageData(0, 0, 400, 300).data).size"
    )
    assert colours > 10  # something is drawn


def test_many_are_taken_and_what_is_no_picture_is_named(line: Line, tiny_data: CategoryData) -> None:
    (line.folder / "notes.png").write_text("no picture")
    line.tab.set_input_files("#files", [image.path for image in tiny_data.test])
    line.tab.set_input_files("#files", line.folder / "notes.png")
    expect(line.tab.locator(".toast")).to_contain_text("notes.png is not an image of a known format")
    count = len(tiny_data.test) + 1
    expect(line.tab.locator("#counts b").first).to_have_text(str(count))
    expect(line.tab.locator("#since")).to_contain_text("06:00, 14:00, 22:00")
    rows = judged(line)
    assert [row["id"] for row in rows] == list(range(count, 0, -1))
    rejected = sum(row["outcome"] == "reject" for row in rows)
    expect(line.tab.locator("#counts b").nth(2)).to_have_text(f"{100 * rejected / count:.1f} %")
    line.faults.remove(
        next(fault for fault in line.faults if "400" in fault or "409" in fault)
    )  # of notes.png


def test_the_value_under_the_pointer_is_the_map_s(line: Line, tiny_data: CategoryData) -> None:
    line.open("/look/1")
    line.tab.wait_for_selector("body[data-ready=yes]")
    with line.judge() as judge:
        verdict = judge.judge(tiny_data.test[0].path)
    box = line.tab.locator("#overlay").bounding_box()
    assert box is not None
    line.tab.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2 + 1)
    side = verdict.anomaly_map.shape[0]
    shown = line.tab.locator("#pointer").text_content() or ""
    value = float(re.findall(r": ([\d.]+)", shown)[0])
    assert value == pytest.approx(float(verdict.anomaly_map[side // 2, side // 2]), rel=2e-3)
    line.tab.keyboard.press("+")
    line.tab.keyboard.press("Shift+ArrowLeft")
    line.tab.keyboard.press("o")
    expect(line.tab.locator("#outline")).not_to_be_checked()
    line.tab.keyboard.press("ArrowLeft")  # the next one that came
    line.tab.wait_for_url("**/look/2*")


def test_a_verdict_is_marked_with_a_note_and_a_drawn_mask(line: Line) -> None:
    """In one tab; another one that is open hears of it, and it is there after the page is loaded anew."""
    other = line.new_tab()
    other.goto(f"{line.url}/look/1")
    other.wait_for_selector("body[data-ready=yes]")
    line.tab.bring_to_front()
    line.open("/look/1")
    line.tab.wait_for_selector("body[data-ready=yes]")
    line.tab.fill("#note", "seen by <hand>")
    line.tab.check("#draw")
    box = line.tab.locator("#overlay").bounding_box()
    assert box is not None
    for y in (0.45, 0.55):
        line.tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + y * box["height"])
        line.tab.mouse.down()
        line.tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + y * box["height"], steps=4)
        line.tab.mouse.up()
    line.tab.click("#undo")
    line.tab.click("#mark")
    outcome = line.get("/api/inspections/1")["inspection"]["outcome"]
    wrong = "escape" if outcome == "good" else "false reject"
    expect(line.tab.locator("#marked")).to_contain_text(wrong)
    other.bring_to_front()
    expect(other.locator("#marked")).to_contain_text("seen by <hand>")
    other.close()
    line.tab.reload()
    expect(line.tab.locator("#marked")).to_contain_text("with a drawn mask")
    mask = np.asarray(
        Image.open(io.BytesIO(line.context.request.get(f"{line.url}/api/inspections/1/drawn").body()))
    )
    rows = np.flatnonzero(mask.any(axis=1))
    assert mask.shape == (64, 64)
    assert 20 < rows.mean() < 32  # the first line, above the middle; the second one was taken back


def test_the_threshold_is_moved_by_keys_and_applied_with_a_reason(line: Line) -> None:
    with line.judge() as judge:
        before = judge.judge(np.zeros((64, 64, 3), np.uint8))
    line.open("/threshold")
    line.tab.wait_for_selector("body[data-ready=yes]")
    rows = judged(line)
    slider = line.tab.locator("#slider")
    slider.focus()
    line.tab.keyboard.press("Home")  # nothing passes
    now_good = sum(row["score"] <= before.threshold for row in rows)
    expect(line.tab.locator("#changes b").nth(2)).to_have_text(str(now_good))
    expect(line.tab.locator("#to-reject .thumb")).to_have_count(now_good)
    line.tab.keyboard.press("End")
    expect(line.tab.locator("#changes b").nth(1)).to_have_text(str(len(rows) - now_good))
    expect(line.tab.locator("#apply")).to_be_disabled()  # no reason is given
    chosen = sorted(row["score"] for row in rows)[3] * 1.0001
    line.tab.fill("#value", str(chosen))
    line.tab.fill("#reason", "too many pass")
    line.tab.click("#apply")
    expect(line.tab.locator(".toast")).to_contain_text("The threshold is", timeout=60_000)
    with line.judge() as judge:
        after = judge.judge(np.zeros((64, 64, 3), np.uint8))
    assert after.threshold == pytest.approx(chosen, rel=1e-5)
    assert after.release_id != before.release_id
    assert (
        line.get(f"/api/scores?category={CATEGORY}")["others"] == 0
    )  # the same weights: scores are compared on
    log = line.folder / "model_repository" / ".releases" / "audit.jsonl"
    assert "too many pass" in "".join(
        path.read_text() for path in log.parent.rglob("*") if path.suffix == ".jsonl"
    )


def test_marks_are_exported_in_mvtec_ad_s_layout(line: Line) -> None:
    line.open("/marks")
    line.tab.wait_for_selector("body[data-ready=yes]")
    expect(line.tab.locator("#marked-list .tile")).to_have_count(1)
    with line.tab.expect_download() as loading:
        line.tab.click("#download")
    with zipfile.ZipFile(loading.value.path()) as archive:
        names = archive.namelist()
    kinds = {name.split("/", 1)[1].rpartition("/")[0] for name in names if name.endswith(".png")}
    assert kinds <= {"train/good", "test/good", "test/escape", "ground_truth/escape"}
    assert kinds
    line.tab.click("#export-folder")
    expect(line.tab.locator("#exported")).to_contain_text(str(line.folder / "data" / "exports" / CATEGORY))


def test_the_history_is_searched_and_exported(line: Line) -> None:
    rows = judged(line)
    line.open("/history")
    line.tab.wait_for_selector("body[data-ready=yes]")
    expect(line.tab.locator("#count")).to_contain_text(f"{len(rows)} pictures")
    line.tab.select_option("select[name=marked]", "any")
    line.tab.click("#filters button[type=submit]")
    expect(line.tab.locator("#count")).to_contain_text("1 picture,")
    line.tab.reload()  # the address holds the filters
    expect(line.tab.locator("#count")).to_contain_text("1 picture,")
    line.tab.click("#filters button[type=reset]")
    expect(line.tab.locator("#count")).to_contain_text(f"{len(rows)} pictures")
    for kind in ("csv", "json"):
        with line.tab.expect_download() as loading:
            line.tab.click(f"#{kind}")
        text = Path(loading.value.path()).read_text(encoding="utf-8")
        exported = json.loads(text) if kind == "json" else list(csv.DictReader(io.StringIO(text)))
        assert [float(row["score"]) for row in exported] == [row["score"] for row in rows]
        assert [str(row["release_id"]) for row in exported] == [row["release_id"] for row in rows]


def test_regions_are_drawn_typed_undone_and_downloaded_for_a_calibration(line: Line) -> None:
    """By clicks on a judged picture of 64 x 64 pixels and by keys; the file is one that `train fit` takes."""
    line.open("/regions")
    line.tab.wait_for_selector("body[data-ready=yes]")
    tab, status, fault = line.tab, line.tab.locator("#regions-status"), line.tab.locator("#regions-fault")
    expect(status).to_have_text("All of the picture is inspected.")
    expect(tab.locator("#download")).to_be_disabled()
    box = tab.locator("#drawing").bounding_box()
    assert box is not None
    scale = min(box["width"], box["height"]) / 64
    left, top = box["x"] + (box["width"] - 64 * scale) / 2, box["y"] + (box["height"] - 64 * scale) / 2
    for x, y in ((4, 4), (60, 4), (60, 60), (4, 60), (4, 4)):  # the last one closes it
        tab.mouse.click(left + x * scale, top + y * scale)
    expect(status).to_contain_text("1 to inspect, 0 to ignore; about 7")
    tab.focus("#add-ignore")
    tab.keyboard.press("Enter")
    for x, y in ((20, 20), (40, 20), (30, 99)):
        tab.keyboard.press("Enter")  # on the button that adds a corner
        number = tab.locator("fieldset[data-kind=ignore] li").count()
        for axis, value in (("x", x), ("y", y)):
            tab.fill(f"[aria-label='ignore 1, corner {number}, {axis}']", str(value))
        tab.focus("[aria-label='Add a corner to ignore 1']")
    expect(fault).to_have_text("Corner 3 of ignore 1 lies at 30, 99, outside the picture of 64 × 64 pixels.")
    expect(tab.locator("#download")).to_be_disabled()
    tab.click("#undo")
    tab.fill("[aria-label='ignore 1, corner 3, y']", "40")
    tab.focus("#undo")
    expect(fault).to_be_empty()
    with tab.expect_download() as loading:
        tab.click("#download")
    drawn = read_regions(Path(loading.value.path()))
    assert drawn.picture == (64, 64)
    assert drawn.ignore == (((20, 20), (40, 20), (30, 40)),)
    np.testing.assert_allclose(drawn.inspect, [[(4, 4), (60, 4), (60, 60), (4, 60)]], atol=0.5)
    tab.reload()  # what was drawn is there again
    expect(status).to_contain_text("1 to inspect, 1 to ignore")
    tab.click("[aria-label='Remove inspect 1']")
    tab.set_input_files("#regions-file", loading.value.path())
    expect(status).to_contain_text("1 to inspect, 1 to ignore")
    other = line.folder / "other.json"
    other.write_text(json.dumps({**drawn.model_dump(mode="json"), "picture": [640, 480]}))
    tab.set_input_files("#regions-file", other)
    expect(tab.locator(".toast")).to_contain_text("640 × 480 pixels, and this one has 64 × 64, another shape")
    expect(tab.locator("pre")).to_have_text(f"make export CATEGORY={CATEGORY} REGIONS=regions.json")


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(line: Line, path: str, scheme: str) -> None:
    line.tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    line.open(path)
    line.tab.wait_for_load_state("load")
    line.tab.wait_for_timeout(250)  # of what its script adds
    found = Axe().run(line.tab, options=RULES)
    assert found.violations_count == 0, found.generate_report()


def test_a_viewer_logs_in_sees_what_is_watched_and_changes_nothing(
    line: Line, tiny_data: CategoryData, tmp_path: Path
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"viewer={TOKENS.viewer}\neditor={TOKENS.editor}\n")
    shutil.copytree(line.folder / "data" / "pictures", tmp_path / "data" / "pictures")
    with sqlite3.connect(line.folder / "data" / "page.sqlite") as source:
        with sqlite3.connect(tmp_path / "data" / "page.sqlite") as target:
            source.backup(target)
        target.close()
    source.close()
    options = ("--url", line.server.grpc_url, "--data", tmp_path / "data", "--tokens", tokens)
    with paging(*options, "--watch", f"{CATEGORY}={drop}") as url, closing(line.new_tab()) as tab:
        tab.goto(f"{url}/history")
        assert Axe().run(tab, options=RULES).violations_count == 0
        tab.fill("#token", TOKENS.editor[:-1])
        tab.keyboard.press("Enter")
        expect(tab.locator("#login-fault")).to_contain_text("neither the viewer's nor the editor's token")
        line.faults.remove(next(fault for fault in line.faults if "400" in fault))  # of the wrong token
        tab.fill("#token", TOKENS.viewer)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{url}/history*")
        for path, absent in (
            ("/", "#drop"),
            ("/look/1", "#mark-form"),
            ("/threshold", "#apply"),
            ("/marks", "#compare"),
            ("/marks", "#download"),
        ):
            tab.goto(f"{url}{path}")
            expect(tab.locator(absent)).to_have_count(0)
        tab.goto(f"{url}/")
        shutil.copyfile(tiny_data.test[0].path, drop / "watched.png")
        expect(tab.locator("#picture-name")).to_have_text("watched.png", timeout=30_000)
        tab.click("#stage")  # watch keeps no map: the server is asked for it
        tab.wait_for_selector("body[data-ready=yes]")
        expect(tab.locator("#map-note")).to_be_empty()
        tab.hover("#overlay")
        expect(tab.locator("#pointer")).to_contain_text("thresholds")
        tab.click("#logout")
        tab.wait_for_url(f"{url}/login")
        tab.goto(f"{url}/login?next=/%5Cevil.example/x")  # browsers take it for //evil.example/x
        tab.fill("#token", TOKENS.viewer)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{url}/")


def test_the_console_had_no_complaint(line: Line) -> None:
    assert line.faults == []

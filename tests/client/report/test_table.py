"""The page's table in a real browser, and the pictures that lie in the page."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from client.core.defects import Defect
from client.files import StorageError
from client.pictures.overlays import CAPTION, PANEL
from client.predictions.prediction import Prediction
from client.report import Beside, Thumbnails, require_place_for_page, thumbnails_of, write_report
from tests.client.samples import RELEASE, make_prediction, save_image

CHROMIUM = Path("/usr/bin/chromium")
N_ROWS = 10_000


def defect(area: int, left: int = 0) -> Defect:
    return Defect(left, 7, 5, 6, area, peak=2.5, mean=1.0, centre_x=2.0, centre_y=9.0)


def many() -> list[Prediction]:
    """10,000 answers, each higher than the one before; the last ten are anomalous, with 1 to 10 defects."""
    entries = []
    for index in range(N_ROWS):
        count = max(0, index - N_ROWS + 11)
        entry = make_prediction(
            f"lot/{index:05}.png",
            defect=None if index % 2 else "good",
            score=index / N_ROWS,
            anomalous=count > 0,
        )
        defects = tuple(defect(100 * index, left) for left in range(count))
        entries.append(replace(entry, original_size=(640, 480), defects=defects))
    return entries


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page about 10,000 answers and one image without, in Chromium."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium")
    path = tmp_path_factory.mktemp("page") / "served.html"
    beside = Beside(missed=[("lot/</script><i>.png", "it is broken.")])
    write_report(path, predictions=many(), metrics=None, speed=None, beside=beside)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        faults: list[Any] = []
        opened.on("pageerror", lambda error: faults.append(error))
        opened.on("console", lambda message: faults.append(message.text))
        opened.on(
            "request", lambda request: faults.append(request.url) if "served" not in request.url else None
        )
        opened.goto(path.as_uri())
        yield opened
        assert faults == []
        browser.close()


def names(page: Page) -> list[str]:
    return [text.split("\n")[0] for text in page.locator("#images tbody td:first-child").all_inner_texts()]


def test_the_table_is_sorted_and_filtered(page: Page) -> None:
    assert page.locator("#count").inner_text() == f"{N_ROWS + 1} of {N_ROWS + 1} images"
    assert names(page)[:2] == ["lot/09999.png", "lot/09998.png"]
    assert len(names(page)) == 100
    page.get_by_role("button", name="Score").press("Enter")
    assert names(page)[0] == "lot/00000.png"
    assert page.locator("th[data-key=s]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Next").click()
    assert (names(page)[0], page.locator("#place").inner_text()) == ("lot/00100.png", "101 to 200")
    page.get_by_label("Verdict").select_option("anomalous")
    assert names(page) == [f"lot/{index:05}.png" for index in range(N_ROWS - 10, N_ROWS)]
    page.get_by_label("Largest defect").fill(str(100 * (N_ROWS - 3)))
    assert len(names(page)) == 3
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("What it is").select_option("unknown")
    page.get_by_label("Name holds").fill("0007")
    expected = ["lot/00071.png", "lot/00073.png", "lot/00075.png", "lot/00077.png", "lot/00079.png"]
    assert sorted(names(page)) == ["lot/00007.png", *expected]
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Verdict").select_option("not judged")
    assert page.locator("#images tbody").inner_text().split("\t")[:2] == [
        "lot/</script><i>.png",
        "not judged",
    ]
    assert "it is broken." in page.locator("#images tbody").inner_text()


def test_defects_are_listed_with_place_and_size(page: Page) -> None:
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Name holds").fill("09991")
    row = page.locator("#images tbody tr")
    assert row.locator("li").all_inner_texts() == [
        f"5 × 6 at {left}, 7; area 999100, peak 2.5" for left in range(2)
    ]
    assert str(RELEASE) in row.inner_text()  # 63 bits, not rounded
    assert "640 × 480 pixels" in row.inner_text()


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_pictures_lie_in_the_page(tmp_path: Path) -> None:
    """Of an overlay, and of an image without one; not of one that is not there any more."""
    overlay = save_image(tmp_path / "overlays" / "a.png", (2 * PANEL, CAPTION + PANEL))
    image = save_image(tmp_path / "b.png", (400, 200))
    entries = [
        make_prediction(str(tmp_path / "a.png"), overlay=str(overlay)),
        replace(make_prediction(str(image)), original_size=(400, 200), defects=(defect(30, left=300),)),
        make_prediction(str(tmp_path / "gone.png"), overlay=str(tmp_path / "overlays" / "gone.png")),
    ]
    shown = thumbnails_of(entries)
    assert shown.keys() == {str(tmp_path / "a.png"), str(image)}
    write_report(
        tmp_path / "served.html", predictions=entries, metrics=None, speed=None, beside=Beside((), shown)
    )
    overlay.unlink()
    text = (tmp_path / "served.html").read_text()
    assert {picture.size for picture in pictures(text)} == {(224, 112), (640, 350)}
    rows = json.loads(text.partition('id="rows">')[2].partition("</script>")[0])
    assert ["p" in row for row in rows] == [True, True, False]


def test_the_most_anomalous_are_kept_of_many() -> None:
    thumbnails = Thumbnails(most=3)
    for index in (5, 1, 9, 3, 7, 7):
        thumbnails.add(make_prediction(f"{index}.png", score=float(index)), lambda: Image.new("RGB", (8, 8)))
    assert thumbnails.by_image().keys() == {"9.png", "7.png"}
    assert len(thumbnails._kept) == 3


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b'{"image": 1}\n'])
def test_the_page_replaces_nothing_but_a_page(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "served.html"
    require_place_for_page(path)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="exists and is no HTML page"):
        require_place_for_page(path)
    path.write_bytes(b"<!DOCTYPE html>")
    require_place_for_page(path)

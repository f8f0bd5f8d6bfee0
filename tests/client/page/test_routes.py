"""What the browser is answered: pictures taken in, looked at, searched, exported, marked and compared."""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.core.errors import ClientError
from client.core.verdicts import Score
from client.files import StorageError
from client.page.comparing import Candidate, Compared
from client.page.inspecting import files, maps
from client.page.retuning import Retuned
from client.page.routes import marking, threshold
from client.page.store import inspections, marked, settings
from client.page.store.inspections import StoredMap
from tests.client.page.desk import MAP, RELEASE, add, client_of, judged, make_state, png
from tests.client.samples import make_verdict


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("part.png", "part.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\parts\\a.png", "a.png"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("a\x00b\n.png", "a\\x00b\\n.png"),
        ("\udcff.png", "\\udcff.png"),
        ("", "unnamed"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_name_is_for_people_and_never_a_path(name: str, shown: str) -> None:
    assert files.shown_name(name) == shown


def test_a_dropped_picture_waits_to_be_judged_and_its_bytes_are_kept(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        answer = client.post("/api/pictures?category=pill&name=../../evil.png", content=png())
        assert answer.status_code == 201
        found = inspections.find(state.database, answer.json()["id"])
        assert found is not None
        assert (found.name, found.outcome) == ("evil.png", "waiting")
        (kept,) = (path for path in state.database.pictures.rglob("*") if path.is_file())
        assert kept.read_bytes() == png()
        assert kept == state.database.pictures / str(found.picture)


@pytest.mark.parametrize(
    ("query", "content", "status", "said"),
    [
        ("category=pill&name=a.txt", b"text", 409, "a.txt is not an image of a known format"),
        ("category=pill&name=a.png", b"", 409, "not an image"),
        ("category=screw&name=a.png", png(), 400, "does not show 'screw'; it shows pill, cable"),
        ("name=a.png", png(), 400, "does not show None"),
    ],
)
def test_what_is_no_picture_is_refused_and_nothing_is_kept(
    tmp_path: Path, query: str, content: bytes, status: int, said: str
) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        refused = client.post(f"/api/pictures?{query}", content=content)
        assert (refused.status_code, said in refused.json()["error"]) == (status, True), refused.text
        assert inspections.last_change(state.database) == 0
        assert not [path for path in state.database.pictures.rglob("*") if path.is_file()]


def test_uploads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.page.routes.live.LARGEST_UPLOAD", 1000)

    def parts() -> Any:
        for _ in range(5):
            yield bytes(300)

    with client_of(make_state(tmp_path)) as client:
        for content in (bytes(1001), parts()):  # the size is stated, or not
            refused = client.post("/api/pictures?category=pill&name=a.png", content=content)
            assert (refused.status_code, "more than" in refused.json()["error"]) == (413, True)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    state = make_state(tmp_path)
    with client_of(state) as client:
        refused = client.post("/api/pictures?category=pill&name=a.png", content=png())
    assert refused.status_code == 507
    assert "No space left on device" in refused.json()["error"]


def test_a_picture_s_map_comes_as_it_was_judged(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        number = add(state.database, None)
        verdict = make_verdict(MAP)
        inspections.settle(state.database, number, judged(3.0), maps.pack(verdict))
        answer = client.get(f"/api/inspections/{number}/map")
        shape = tuple(int(answer.headers[name]) for name in ("x-rows", "x-columns"))
        values = np.frombuffer(answer.content, "<f4", MAP.size).reshape(shape)
        mask = np.frombuffer(answer.content, np.uint8, offset=4 * MAP.size).reshape(shape)
        np.testing.assert_allclose(values, MAP, atol=3 / maps.LEVELS)
        np.testing.assert_array_equal(mask.astype(bool), verdict.mask)


def test_maps_that_wait_for_the_server_keep_nobody_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, go_on = make_state(tmp_path), threading.Event()

    @contextmanager
    def judging() -> Any:
        go_on.wait(20)
        raise ClientError("Nobody answers.")
        yield

    monkeypatch.setattr(state.stations["pill"], "judging", judging)
    with client_of(state) as client, ThreadPoolExecutor(45) as viewers:
        number = add(state.database, picture=True)
        asked = [viewers.submit(client.get, f"/api/inspections/{number}/map") for _ in range(45)]
        try:
            with ThreadPoolExecutor(1) as other:
                assert other.submit(client.get, "/api/live?category=pill").result(10).status_code == 200
        finally:
            go_on.set()
        assert {each.result().status_code for each in asked} == {409}


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4)), np.full((4, 4), -2.5), np.array([[-1.0, 5.0], [1e-9, 1e6]])]
)
def test_a_map_of_any_range_is_kept(values: Any) -> None:
    verdict = make_verdict(values.astype(np.float32))
    packed = maps.pack(verdict)
    assert isinstance(packed, StoredMap)
    unpacked, mask = maps.unpack(packed)
    np.testing.assert_allclose(unpacked, values, atol=np.ptp(values) / maps.LEVELS)
    np.testing.assert_array_equal(mask, verdict.mask)


def test_a_browser_gets_the_pixels_that_were_judged(tmp_path: Path) -> None:
    """A grey TIFF of 16 bits, which no browser shows, and one turned by its EXIF entry, come as upright PNG."""
    state = make_state(tmp_path)
    with client_of(state) as client:
        number = add(state.database, picture=True)
        as_it_is = client.get(f"/api/inspections/{number}/picture")
        assert (as_it_is.headers["content-type"], as_it_is.content) == ("image/png", png())
        Image.fromarray(np.full((4, 6), 255, np.uint16)).save(state.database.pictures / "deep.tif")
        number = add(state.database, picture=True)
        with state.database.write() as connection:
            connection.execute("UPDATE inspections SET picture = 'deep.tif' WHERE id = ?", (number,))
        shown = Image.open(io.BytesIO(client.get(f"/api/inspections/{number}/picture").content))
        assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (6, 4))
        for place in ("picture", "preview"):
            (state.database.pictures / "deep.tif").unlink(missing_ok=True)
            gone = client.get(f"/api/inspections/{number}/{place}")
            assert gone.status_code == 404
        assert client.get("/api/inspections/77/picture").json()["error"] == "There is no picture 77 here."


def test_the_history_is_exported_with_every_figure_and_no_formula(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        for number in range(3):
            add(state.database, 0.5 + number, name="=HYPERLINK(evil)" if number else 'ünïcode,"quoted".png')
        exported = json.loads(client.get("/export/history.json").text)
        assert [row["score"] for row in exported] == [2.5, 1.5, 0.5]
        assert exported[0]["release_id"] == str(RELEASE)
        assert exported[0]["largest_defect"] == 12
        rows = list(csv.DictReader(io.StringIO(client.get("/export/history.csv?outcome=reject").text)))
        assert [row["name"] for row in rows] == ["'=HYPERLINK(evil)"] * 2
        rows = list(csv.DictReader(io.StringIO(client.get("/export/history.csv?outcome=good").text)))
        assert rows[0]["name"] == 'ünïcode,"quoted".png'
        assert json.loads(client.get("/export/history.json?outcome=failed").text) == []
        for wrong in (
            "outcome=x",
            "since=soon",
            "release=-1",
            "defect_from=1.5",
            "before=99999999999999999999",
        ):
            assert client.get(f"/api/history?{wrong}").status_code == 400, wrong


def mask_of(size: tuple[int, int], box: tuple[int, int, int, int] | None) -> str:
    image = Image.new("RGB", size)
    if box:
        image.paste("white", box)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_mark_fits_the_verdict_and_its_mask_the_picture(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        good, bad, waiting = add(state.database), add(state.database, 2.0), add(state.database, None)
        for number, wrong in ((good, "false reject"), (bad, "escape"), (waiting, "escape"), (good, None)):
            assert client.post(f"/api/inspections/{number}/mark", json={"wrong": wrong}).status_code == 400
        place = f"/api/inspections/{good}/mark"
        other = mask_of((6, 8), None)
        for mask, said in ((other, "those of the picture, 8 x 6"), ("?", "is no PNG"), ("AAAA", "is no PNG")):
            refused = client.post(place, json={"wrong": "escape", "mask": mask})
            assert (refused.status_code, said in refused.json()["error"]) == (400, True)
        drawn = {"wrong": "escape", "note": " here ", "mask": mask_of((8, 6), (1, 2, 3, 4))}
        assert client.post(place, json=drawn).status_code == 200
        kept = np.asarray(Image.open(io.BytesIO(marked.mask_of(state.database, good) or b"")))
        assert np.argwhere(kept).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
        assert client.get(f"/api/inspections/{good}").json()["inspection"]["note"] == "here"
        client.post(place, json=drawn | {"mask": mask_of((8, 6), None)})
        assert marked.mask_of(state.database, good) is None  # nothing is drawn
        assert client.delete(place).status_code == 200
        assert client.get("/api/marks?category=pill").json()["inspections"] == []


def test_marks_leave_as_a_folder_and_as_a_zip(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        nothing = client.post("/api/marks/export", json={"category": "pill"})
        assert "No picture is marked" in nothing.json()["error"]
        number = add(state.database, picture=True)
        drawn = {"wrong": "escape", "mask": mask_of((8, 6), (0, 0, 4, 4))}
        client.post(f"/api/inspections/{number}/mark", json=drawn)
        done = client.post("/api/marks/export", json={"category": "pill"}).json()
        assert (done["n_escapes"], done["n_masks"]) == (1, 1)
        assert Path(done["folder"]) == tmp_path / "exports" / "pill"
        answer = client.get("/export/marks.zip?category=pill")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = archive.namelist()
        for place in ("pill/test/escape/", "pill/ground_truth/escape/"):
            assert len([name for name in names if name.startswith(place)]) == 1
        assert not list(tmp_path.glob("marks-*"))  # nothing is left behind


def test_a_threshold_needs_a_reason_and_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def retune(category: str, value: float, **options: Any) -> Retuned:
        asked.append((category, value, options["reason"]))
        return Retuned(category, value, 2, 12, 1.0, 1, 11, ("done",))

    monkeypatch.setattr(threshold, "retune", retune)
    state = make_state(tmp_path)
    with client_of(state) as client:
        add(state.database, verdict=judged(release_id=11))
        monkeypatch.setattr(state.stations["pill"], "ask_live", lambda: 11)
        given = {"category": "pill", "threshold": 1.25, "reason": "fewer rejects", "release_id": "11"}
        assert "--repository" in client.post("/api/threshold", json=given).json()["error"]
        state.repository = tmp_path
        wrongs: list[dict[str, Any]] = [{"threshold": value} for value in ("high", True, None, 10**400)]
        wrongs += [{"release_id": value} for value in (11, "", None, "1.5")]
        for wrong in (*wrongs, {"reason": " "}, {"category": "x"}):
            assert client.post("/api/threshold", json=given | wrong).status_code == 400
        assert asked == []
        assert client.post("/api/threshold", json=given).json()["release_id"] == "12"
        assert asked[0][:3] == ("pill", 1.25, "fewer rejects")
        assert (
            client.get("/api/scores?category=pill").json()["threshold"] == 1.0
        )  # the live one is not known yet


def test_a_refused_threshold_is_told_in_deploy_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Retuned:
        raise ClientError("Somebody else changes the repository.")

    monkeypatch.setattr(threshold, "retune", refuse)
    state = make_state(tmp_path, repository=tmp_path)
    monkeypatch.setattr(state.stations["pill"], "ask_live", lambda: 11)
    given = {"category": "pill", "threshold": 1, "reason": "r", "release_id": "11"}
    with client_of(state) as client:
        refused = client.post("/api/threshold", json=given)
        assert (refused.status_code, refused.json()["error"]) == (
            409,
            "Somebody else changes the repository.",
        )


def test_a_threshold_goes_with_the_release_whose_scores_were_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another release was promoted elsewhere, and has judged nothing: its scores are others."""
    asked: list[Any] = []

    def retune(category: str, value: float, **options: Any) -> Retuned:
        asked.append(options["of_release"])
        return Retuned(category, value, 4, 14, 1.0, 3, 12, ("done",))

    monkeypatch.setattr(threshold, "retune", retune)
    state = make_state(tmp_path, repository=tmp_path)
    monkeypatch.setattr(state.stations["pill"], "ask_live", lambda: 12)
    with client_of(state) as client:
        add(state.database, verdict=judged(release_id=11))
        seen = client.get("/api/scores?category=pill").json()
        assert (seen["release_id"], seen["threshold"], seen["scores"], seen["others"]) == ("12", None, [], 1)
        given = {"category": "pill", "threshold": 1.25, "reason": "fewer", "release_id": seen["release_id"]}
        done = client.post("/api/threshold", json=given).json()
        assert (asked, done["said"]) == ([12], ["done"])


def test_without_the_server_the_last_known_release_is_shown_and_nothing_can_be_applied(
    tmp_path: Path,
) -> None:
    state = make_state(tmp_path, repository=tmp_path)
    with client_of(state) as client:
        add(state.database, verdict=judged(release_id=11), arrived_at=1_000.0)
        settings.keep_retuning(
            state.database,
            category="pill",
            moment=datetime.fromtimestamp(2_000, UTC),
            who="Ann",
            reason="r",
            threshold=1.5,
            releases=(11, 12),
        )
        seen = client.get("/api/scores?category=pill").json()
        assert (seen["release_id"], seen["threshold"], seen["scores"]) == ("12", 1.5, [0.5])
        assert seen["fault"].startswith("Which release is live is not known: ")
        given = {"category": "pill", "threshold": 1.25, "reason": "fewer", "release_id": "12"}
        assert client.post("/api/threshold", json=given).status_code == 409


def test_a_candidate_is_shown_beside_the_live_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(tmp_path, repository=tmp_path)

    @contextmanager
    def preview(*_: object) -> Any:
        yield "127.0.0.1:9"

    def compare(pictures: Any, _live: object, _candidate: object) -> list[Compared]:
        scores = (Score(0.5, 1.0, False, 1, 2.0), Score(1.5, 1.0, True, 2, 2.0))
        return [Compared(picture, *scores, trained_on=False) for picture in pictures]

    class Asked:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(marking, "preview", preview)
    monkeypatch.setattr(marking, "compare", compare)
    listed = Candidate(2, RELEASE, "2026-01-02T03:04:05+00:00", 1.5, None, "new", was_live=False)
    monkeypatch.setattr(marking, "candidates", lambda *_: [listed])
    monkeypatch.setattr(marking, "JudgeClient", Asked)
    live = SimpleNamespace(endpoint="127.0.0.1:8", timeout_s=1.0)
    monkeypatch.setattr(state.stations["pill"], "judging", lambda: nullcontext(live))
    with client_of(state) as client:
        (found,) = client.get("/api/candidates?category=pill").json()["candidates"]
        assert (found["number"], found["release_id"]) == (2, str(RELEASE))
        asked = {"category": "pill", "number": 2}
        assert "No picture is marked" in client.post("/api/compare", json=asked).json()["error"]
        number = add(state.database, picture=True)
        client.post(f"/api/inspections/{number}/mark", json={"wrong": "escape"})
        found = client.post("/api/compare", json=asked).json()
        assert (found["put_right"], found["made_wrong"]) == (1, 0)
        assert found["rows"][0]["candidate"] == {"score": 1.5, "threshold": 1.0}
        assert client.post("/api/compare", json=asked | {"number": "2"}).status_code == 400


def test_a_clock_that_was_set_back_is_told(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        add(state.database, arrived_at=4_000_000_000.0)
        client.post("/api/pictures?category=pill&name=a.png", content=png())
        (notice,) = client.get("/api/live?category=pill").json()["notices"]
        assert "clock was set back" in notice
        client.post("/api/pictures?category=pill&name=a.png", content=png())
        assert client.get("/api/live?category=pill").json()["notices"] == []


def test_a_picture_that_is_not_in_the_history_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("page.sqlite cannot be written (database or disk is full); make room there.")

    monkeypatch.setattr(inspections, "add", full)
    state = make_state(tmp_path)
    with client_of(state) as client:
        refused = client.post("/api/pictures?category=pill&name=a.png", content=png())
    assert refused.status_code == 507
    assert not [path for path in state.database.pictures.rglob("*") if path.is_file()]

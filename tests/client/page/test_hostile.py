"""What no browser of ours sends: each is refused in one sentence, and none keeps the page from its work."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from client.page.routes import limits, live, marking
from client.page.store import inspections, marked
from client.page.store.database import PACKED
from tests.client.page.desk import TOKENS, add, client_of, make_state, png

BMP = b"BM" + bytes(12)


@pytest.mark.parametrize(
    "content", [BMP, png()[:16], png()[:20], b"II*\x00", b"\xff\xd8\xff\xe0", b"RIFF....WEBP"]
)
def test_a_picture_that_was_cut_at_its_start_is_refused(tmp_path: Path, content: bytes) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        answer = client.post("/api/pictures?category=pill&name=cut.bmp", content=content)
        assert answer.status_code in (201, 409), answer.text  # what it is shows when it is read
        if answer.status_code == 409:
            assert "it was not taken" in answer.json()["error"]
            assert inspections.last_change(state.database) == 0


def test_a_mark_on_what_the_page_does_not_show_is_refused_and_not_kept(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        number = add(state.database, category="screw")
        for answer in (
            client.post(f"/api/inspections/{number}/mark", json={"wrong": "escape"}),
            client.delete(f"/api/inspections/{number}/mark"),
        ):
            assert (answer.status_code, "does not show 'screw'" in answer.json()["error"]) == (400, True)
        assert marked.all_marked(state.database, "screw") == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"wrong": "escape", "note": "\\ud800"}', "half a character"),
        ('{"wrong": "escape", "mask": "ä"}', "is no PNG"),
        ('{"wrong": "escape", "mask": "iVBORw0KGgo="}', "is no PNG"),
        ("[" * 100_000, "no JSON object"),
        ('{"a":' * 100_000, "no JSON object"),
    ],
)
def test_a_mark_that_cannot_be_is_refused(tmp_path: Path, given: str, said: str) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        number = add(state.database)
        refused = client.post(f"/api/inspections/{number}/mark", content=given.encode())
        assert (refused.status_code, said in refused.json()["error"]) == (400, True)
        assert marked.all_marked(state.database, "pill") == []


def test_half_a_character_is_no_token(tmp_path: Path) -> None:
    with client_of(make_state(tmp_path, tokens=TOKENS)) as client:
        refused = client.post("/login", content=b'{"token": "\\ud800"}')
        assert (refused.status_code, "half a character" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 10**30, int("9" * 4000)])
def test_a_picture_of_an_id_that_cannot_be_is_not_there(tmp_path: Path, number: int) -> None:
    with client_of(make_state(tmp_path)) as client:
        for place in ("", "/thumbnail", "/map", "/picture"):
            assert client.get(f"/api/inspections/{number}{place}").status_code == 404


@pytest.mark.parametrize("origin", ["http://[evil", "http://]", "//[", "\x7f", "null"])
def test_an_origin_that_is_none_is_refused(tmp_path: Path, origin: str) -> None:
    with client_of(make_state(tmp_path)) as client:
        refused = client.post("/api/shift", json={"now": True}, headers={"origin": origin})
        assert (refused.status_code, "from this page alone" in refused.json()["error"]) == (403, True)


def test_an_error_that_nobody_thought_of_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(inspections, "last_change", fail)
    with client_of(make_state(tmp_path)) as client:
        client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
        failed = client.get("/api/live?category=pill")
        assert (failed.status_code, "its log says where" in failed.json()["error"]) == (500, True)


def test_a_training_set_is_packed_for_editors_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(tmp_path, tokens=TOKENS)
    place = "/export/marks.zip?category=pill"
    with client_of(state) as client:
        number = add(state.database, picture=True)
        client.post("/login", json={"token": TOKENS.editor})
        client.post(f"/api/inspections/{number}/mark", json={"wrong": "escape"})
        assert client.get(place).status_code == 200
        with marking._packing:
            refused = client.get(place)
            assert (refused.status_code, "is being packed" in refused.json()["error"]) == (400, True)
        assert client.get(place).status_code == 200
        client.post("/login", json={"token": TOKENS.viewer})
        assert client.get(place).status_code == 403


def test_what_a_page_that_was_killed_had_packed_is_removed(tmp_path: Path) -> None:
    left_over = tmp_path / f"{PACKED}abc" / "pill"
    left_over.mkdir(parents=True)
    (left_over / "a.png").write_bytes(png())
    make_state(tmp_path).database.close()
    assert not list(tmp_path.glob(f"{PACKED}*"))


def test_pictures_that_wait_in_a_category_that_is_not_shown_are_told(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        for _ in range(2):
            add(state.database, None, category="screw")
        add(state.database, None)
        state.tell_of_others()
        (notice,) = client.get("/api/live?category=pill").json()["notices"]
        assert notice.startswith("2 pictures wait to be judged as 'screw'")
        assert "--category screw" in notice


def test_a_drawn_mask_is_decoded_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        with pytest.raises(RuntimeError):  # there is none in this thread
            asyncio.get_running_loop()

    monkeypatch.setattr(marking, "_mask_of", decode)
    state = make_state(tmp_path)
    with client_of(state) as client:
        number = add(state.database)
        place = f"/api/inspections/{number}/mark"
        assert client.post(place, json={"wrong": "escape", "mask": "AAAA"}).status_code == 200


def test_few_large_uploads_lie_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SMALL_UPLOAD", 10)
    monkeypatch.setitem(limits.MOST, limits.UPLOAD, 1)
    in_memory: list[bytes] = []
    most: list[int] = []

    def keep(_state: Any, _station: Any, content: bytes, _name: str) -> dict[str, Any]:
        in_memory.append(content)
        most.append(len(in_memory))
        time.sleep(0.02)
        in_memory.remove(content)
        return {"id": 1}

    monkeypatch.setattr(live, "_keep", keep)
    place = "/api/pictures?category=pill&name=a.png"
    with client_of(make_state(tmp_path)) as client, ThreadPoolExecutor(4) as stations:
        sent = [stations.submit(client.post, place, content=bytes([number] * 20)) for number in range(4)]
        assert [each.result().status_code for each in sent] == [201] * 4
    assert most == [1] * 4

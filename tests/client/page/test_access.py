"""Who may do what, and what is refused whoever asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from client.core.errors import RequestError
from client.page.access.sessions import COOKIE
from client.page.access.tokens import Role, read_tokens
from client.page.app import ROUTES
from client.page.options import Place, Protection, check_access, check_categories, folders_of
from tests.certificates import Authority
from tests.client.page.desk import ORIGIN, TOKENS, add, client_of, make_state, png


def write_tokens(path: Path, text: str = "", mode: int = 0o600) -> Path:
    path.touch(mode=mode)
    path.write_text(text or f"# ours\nviewer={TOKENS.viewer}\neditor={TOKENS.editor}\n")
    return path


def log_in(client: TestClient, token: str, name: str = "") -> None:
    assert client.post("/login", json={"token": token, "name": name}).status_code == 200


def test_tokens_are_read_from_a_file_of_one_s_own(tmp_path: Path) -> None:
    tokens = read_tokens(write_tokens(tmp_path / "tokens"))
    assert tokens == TOKENS
    assert tokens.role_of(f" {TOKENS.viewer}\n") is Role.VIEWER
    assert tokens.role_of(TOKENS.editor) is Role.EDITOR
    assert tokens.role_of("") is None
    assert TOKENS.editor not in repr(tokens)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("viewer=0123456789abcdef", "holds no editor=<token>"),
        ("viewer=0123456789abcdef\neditor=short", "has 5 characters"),
        ("viewer=0123456789abcdef\neditor=0123456789abcdef", "the same token"),
        ("something else", "is no key"),
    ],
)
def test_a_file_without_two_tokens_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        read_tokens(write_tokens(tmp_path / "tokens", text))
    assert "0123456789abcdef" not in refused.value.message


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is open to everybody"):
        read_tokens(write_tokens(tmp_path / "tokens", mode=0o644))


def test_the_network_is_let_in_with_tokens_and_tls_alone(tmp_path: Path) -> None:
    tokens, signed = write_tokens(tmp_path / "tokens"), Authority(tmp_path).sign("page")
    everywhere, here = Place.of("0.0.0.0:8080"), Place.of("localhost:8080")
    assert (everywhere.loopback, here.loopback) == (False, True)
    with pytest.raises(RequestError, match="give --tokens and --tls-cert and --tls-key, or say --insecure"):
        check_access(everywhere, Protection())
    with pytest.raises(RequestError, match="give --tokens, or"):
        check_access(everywhere, Protection(tls_cert=signed.certificate, tls_key=signed.key))
    access, tls = check_access(everywhere, Protection(tokens, signed.certificate, signed.key))
    assert access.secure
    assert tls == (signed.certificate, signed.key)
    access, tls = check_access(everywhere, Protection(insecure=True))
    assert (access.everybody, tls) == (Role.VIEWER, None)
    assert check_access(here, Protection())[0].everybody is Role.EDITOR


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    one, other = (Authority(tmp_path, name).sign(f"page-{name}") for name in ("one", "other"))
    here = Place.of("127.0.0.1:0")
    with pytest.raises(RequestError, match="give both"):
        check_access(here, Protection(tls_cert=one.certificate))
    with pytest.raises(RequestError, match="are no certificate with its private key"):
        check_access(here, Protection(tls_cert=one.certificate, tls_key=other.key))
    one.key.chmod(0o640)
    with pytest.raises(RequestError, match="may be read by other users"):
        check_access(here, Protection(tls_cert=one.certificate, tls_key=one.key))
    with pytest.raises(RequestError, match="cannot be read"):
        check_access(here, Protection(tls_cert=tmp_path / "none", tls_key=other.key))


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1", "127.0.0.1:70000", "no such host:80", ":80"])
def test_a_place_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(RequestError, match="--listen"):
        Place.of(listen)


def test_a_folder_belongs_to_a_category_of_the_page() -> None:
    names = check_categories(["pill", "cable", "pill"])
    assert names == ["pill", "cable"]
    assert folders_of("--watch", ["pill=a=b"], names) == [("pill", Path("a=b"))]
    for text in ("pill", "screw=drop", "pill="):
        with pytest.raises(RequestError, match=re.escape("expected <category>=<folder>")):
            folders_of("--watch", [text], names)


def test_nobody_sees_anything_without_a_token(tmp_path: Path) -> None:
    with client_of(make_state(tmp_path, tokens=TOKENS)) as client:
        assert client.get("/history").headers["location"] == "/login?next=/history"
        assert client.get("/login").status_code == 200
        for route in ROUTES:
            path = str(getattr(route, "path", "")).replace("{inspection:int}", "1")
            if path.startswith(("/api", "/export")):
                for method in getattr(route, "methods", ()):
                    assert client.request(method, path).status_code in (303, 401), path
        refused = client.post("/login", json={"token": "viewer-token-012345678?"})
        assert (refused.status_code, COOKIE in refused.cookies) == (400, False)


def test_a_viewer_changes_nothing(tmp_path: Path) -> None:
    """Whatever the address: who may only look is refused in one place."""
    state = make_state(tmp_path, tokens=TOKENS)
    with client_of(state) as client:
        add(state.database)
        log_in(client, TOKENS.viewer)
        assert client.get("/api/inspections/1").status_code == 200
        changing = 0
        for route in ROUTES:
            path = str(getattr(route, "path", "")).replace("{inspection:int}", "1")
            for method in set(getattr(route, "methods", ())) - {"GET", "HEAD"}:
                if path not in ("/login", "/api/logout"):
                    refused = client.request(method, path, json={})
                    assert refused.status_code == 403, path
                    assert "You may look" in refused.json()["error"]
                    changing += 1
        assert changing == 8
        assert client.post("/api/pictures?category=pill", content=png()).status_code == 403
        log_in(client, TOKENS.editor, "Ann\n<b>")
        assert client.post("/api/inspections/1/mark", json={"wrong": "escape"}).status_code == 200
        assert client.get("/api/inspections/1").json()["inspection"]["who"] == "Ann <b>"
        client.post("/api/logout")
        assert client.get("/api/inspections/1").status_code == 401


def test_a_cookie_is_nobody_else_s(tmp_path: Path) -> None:
    state = make_state(tmp_path, tokens=TOKENS)
    with client_of(state) as client:
        answer = client.post("/login", json={"token": TOKENS.viewer})
        said = answer.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        payload, _, signature = answer.cookies[COOKIE].partition(".")
        for forged in (
            f"{payload}.",
            f"{payload}.{'0' * 64}",
            f".{signature}",
            "x",
            f"{payload[:-4]}AAAA.{signature}",
        ):
            client.cookies.clear()
            client.cookies.set(COOKIE, forged)
            assert client.get("/api/live?category=pill").status_code == 401


@pytest.mark.parametrize("origin", [None, "https://evil.example", "http://127.0.0.1.evil.example", "null"])
def test_changes_from_another_site_are_refused(tmp_path: Path, origin: str | None) -> None:
    state = make_state(tmp_path)
    with client_of(state) as client:
        add(state.database)
        client.headers.pop("origin")
        headers = {} if origin is None else {"origin": origin}
        refused = client.post("/api/inspections/1/mark", json={"wrong": "escape"}, headers=headers)
        assert refused.status_code == 403
        assert "Changes are taken from this page alone" in refused.json()["error"]
        assert (
            client.post("/api/inspections/1/mark", json={"wrong": "escape"}, headers=ORIGIN).status_code
            == 200
        )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "[", ""])
def test_another_name_that_leads_here_is_refused(tmp_path: Path, host: str) -> None:
    with client_of(make_state(tmp_path)) as client:
        assert client.get("/", headers={"host": host}).status_code == 403
        for own in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
            assert client.get("/", headers={"host": own}).status_code == 200


def test_no_answer_lets_foreign_scripts_in(tmp_path: Path) -> None:
    with client_of(make_state(tmp_path)) as client:
        for path in ("/", "/history", "/api/live?category=pill", "/static/live.js", "/nowhere"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        page = client.get("/?category=pill").text
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|<style| style=", page)
    assert not re.search(r"(src|href)=\"(?!/|\?|#)", page)  # nothing from other hosts

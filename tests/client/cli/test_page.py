"""`page` on the command line: what is wrong is one sentence, before anything is written."""

from __future__ import annotations

import builtins
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from client.__main__ import main
from client.page.store.database import Database
from tests.certificates import Authority
from tests.client.page.desk import TOKENS


def run(*options: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["page", *map(str, options)])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "8080"), "--listen is '8080'; expected host:port"),
        (("--listen", "0.0.0.0:0"), "give --tokens and --tls-cert and --tls-key, or say --insecure"),
        (("--watch", "drop"), "--watch is 'drop'; expected <category>=<folder> with one of pill"),
        (("--base", "screw=a"), "--base is 'screw=a'"),
        (("--tokens", "none"), "none cannot be read"),
        (("--tls-cert", "a"), "give both --tls-cert and --tls-key"),
        (("--category", "a/b"), "Category 'a/b'"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_made(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    code, output = run("--category", "pill", "--data", tmp_path / "data", *options)
    assert (code, said in output) == (2, True), output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_a_folder_or_a_place_that_is_in_use_is_told(tmp_path: Path) -> None:
    database = Database(tmp_path)
    code, output = run("--category", "pill", "--data", tmp_path, "--listen", "127.0.0.1:0")
    database.close()
    assert (code, "is in use by another page" in output) == (2, True)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, output = run("--category", "pill", "--data", tmp_path)
    assert (code, "pip install 'astmfr[page]'" in output) == (1, True)


def test_it_is_served_encrypted_to_who_has_a_token_and_ends_in_order(tmp_path: Path) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens"
    signed = authority.sign("page")
    tokens.touch(mode=0o600)
    tokens.write_text(f"viewer={TOKENS.viewer}\neditor={TOKENS.editor}\n")
    command = [
        sys.executable, "-m", "client", "page", "--category", "pill", "--url", "127.0.0.1:9",
        "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--tokens", tokens,
        "--tls-cert", signed.certificate, "--tls-key", signed.key,
    ]  # fmt: skip
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (url,) = re.findall(r"https://\S+(?=/;)", process.stdout.readline())
        trusted = ssl.create_default_context(cafile=authority.path)
        with httpx.Client(base_url=url, verify=trusted, headers={"origin": url}) as client:
            assert client.get("/api/live?category=pill").status_code == 401
            answer = client.post("/login", json={"token": TOKENS.viewer})
            assert "; secure" in answer.headers["set-cookie"].lower()
            assert client.get("/api/live?category=pill").json()["shift"]["good"] == 0
            with client.stream("GET", "/api/events") as events:  # a browser that stays
                assert next(events.iter_lines()) == ": listening"
                process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_other_commands_load_nothing_of_the_page() -> None:
    program = "import sys, client.__main__; print([name for name in sys.modules if 'starlette' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""`page` on the command line: what is wrong is one sentence, before anything is written."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.__main__ import main
from client.page.store.database import Database


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


def test_the_other_commands_load_nothing_of_the_page() -> None:
    program = "import sys, client.__main__; print([name for name in sys.modules if 'starlette' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The core makes no call, reads no file and waits for nothing: what it needs to know it is given."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.products import ROOT

CORE = sorted((ROOT / "client/core").glob("*.py"))
OUTSIDE = {
    "asyncio",
    "grpc",
    "http",
    "pathlib",
    "random",
    "select",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "time",
}
DOES = {"open", "read_bytes", "read_text", "sleep", "wait", "write_bytes", "write_text", "getenv", "environ"}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_a_module_of_the_core_does_no_input_or_output(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {name.name.partition(".")[0] for name in node.names} & OUTSIDE
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in OUTSIDE
            assert not (node.module or "").startswith(("client.judging", "client.files", "client.console"))
        if isinstance(node, ast.Attribute):
            assert node.attr not in DOES, f"line {node.lineno}"
        if isinstance(node, ast.Name):
            assert node.id != "open", f"line {node.lineno}"


def test_there_is_a_core() -> None:
    assert {
        "requests.py",
        "answers.py",
        "errors.py",
        "faults.py",
        "retries.py",
        "verdicts.py",
        "defects.py",
    } <= {path.name for path in CORE}

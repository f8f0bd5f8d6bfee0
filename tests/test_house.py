"""What keeps the house walkable: short files and functions, few parameters, folders that say what they hold."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import click
import pytest

from tests.products import ROOT

STAGES = ("train", "export", "client", "deploy")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_COMMAND_PARAMETERS = 12
MAX_MODULES = 14  # of a folder; deploy/ stays flat while it has fewer than 20
FOLDERS = (*STAGES, "model_repository", "tests/benchmarks")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_of(stage: str) -> dict[str, click.Command]:
    main = importlib.import_module(f"{stage}.__main__").main
    assert isinstance(main, click.Group)
    return main.commands


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_text_files_are_utf_8_whatever_the_locale(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _is_text(node):
            options = {keyword.arg for keyword in node.keywords}
            assert "encoding" in options, f"line {node.lineno}: {ast.unparse(node)}"


def _is_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text: of a file by its path, or of another process."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if method in ("read_text", "write_text"):
        return True
    if method == "open":  # of a path: ruff forbids the function
        modes = [value.value if isinstance(value, ast.Constant) else None for value in call.args]
        return modes in (["r"], ["w"], ["a"], ["x"]) or not (call.args or call.keywords)
    return any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)


@pytest.mark.parametrize("stage", STAGES)
def test_commands_take_few_parameters(stage: str) -> None:
    """Options that travel together reach a command as one object."""
    for command_name, command in commands_of(stage).items():
        callback = inspect.unwrap(command.callback)  # type: ignore[arg-type]
        parameters = inspect.signature(callback).parameters
        assert len(parameters) <= MAX_COMMAND_PARAMETERS, command_name


@pytest.mark.parametrize("stage", STAGES)
def test_folders_say_what_they_hold(stage: str) -> None:
    for init in sorted((ROOT / stage).rglob("__init__.py")):
        assert ast.get_docstring(ast.parse(init.read_text())), name(init)
        modules = [path for path in init.parent.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (20 if stage == "deploy" else MAX_MODULES), name(init.parent)
        for folder in (path for path in init.parent.iterdir() if path.is_dir() and any(path.glob("*.py"))):
            assert (folder / "__init__.py").is_file(), name(folder)

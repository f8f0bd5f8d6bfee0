"""The README is short, begins with a command, and its program runs against the real server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.server import TritonServer
from tests.documents import code_blocks, run_program
from tests.products import ROOT, Product

pytest_plugins = ["tests.serving"]

README = ROOT / "README.md"
MOST_WORDS = 1100
LINES_OF_A_SCREEN = 30
SECTIONS = [
    "Two commands",
    "Your own product",
    "See and watch",
    "From a program",
    "Quality",
    "Speed",
    "How it works",
    "Layout",
    "Limits",
    "Licence of data",
]


def test_it_takes_two_minutes_to_read() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_the_first_command_is_on_the_first_screen() -> None:
    assert README.read_text().splitlines().index("make demo") < LINES_OF_A_SCREEN


def test_its_sections_keep_their_order() -> None:
    lines = README.read_text().splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS


@pytest.mark.triton
def test_the_program_runs_and_prints_a_verdict(server: TritonServer, edge: Product, tmp_path: Path) -> None:
    (program,) = code_blocks(README, "python")
    shutil.copyfile(edge.data.test[0].path, tmp_path / "part.png")
    verdict, defects, many = run_program(program, server, edge, folder=tmp_path)
    assert verdict.endswith(str(edge.checkpoint.release_id))
    assert defects.startswith("[")
    assert many == str([verdict.startswith("True")] * 2)

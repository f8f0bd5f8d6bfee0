"""What the README tells to type exists, and its program runs against the real server."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.server import TritonServer
from tests.products import ROOT, Product

pytest_plugins = ["tests.serving"]

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


COMMANDS = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
MAKE = [command for command in COMMANDS if command[0] == "make"]
MODULES = [command for command in COMMANDS if command[0] == "python"]


def test_every_command_is_of_a_known_kind() -> None:
    assert len(MAKE) + len(MODULES) == len(COMMANDS) > 8


@pytest.mark.parametrize("command", MAKE, ids=" ".join)
def test_make_knows_the_target_and_reads_every_variable(command: list[str]) -> None:
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    makefile = (ROOT / "Makefile").read_text()
    for variable in (argument.split("=")[0] for argument in command[1:] if "=" in argument):
        assert f"$({variable})" in makefile


@pytest.mark.parametrize("command", [command for command in MODULES if "--help" in command], ids=" ".join)
def test_help_lists_the_verbs_that_the_comment_names(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (comment,) = re.findall(rf"^{' '.join(command)} +# (.*)$", README, re.MULTILINE)
    listed = re.findall(r"^  ([a-z]+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(comment.split(", "))


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target.partition("#")[0]).is_file()


@pytest.mark.triton
def test_the_program_runs_and_prints_a_verdict(server: TritonServer, edge: Product, tmp_path: Path) -> None:
    (program,) = blocks("python")
    shutil.copyfile(edge.data.test[0].path, tmp_path / "part.png")
    there = program.replace("localhost:8001", server.grpc_url).replace('"pill"', repr(edge.name))
    done = subprocess.run(
        [sys.executable, "-c", there], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    size = edge.checkpoint.config.image_size
    verdict, picture, many = done.stdout.splitlines()
    assert verdict.endswith(str(edge.checkpoint.release_id))
    assert picture.startswith(f"({size}, {size}) ")
    assert many == str([verdict.startswith("True")] * 2)

"""The pages that people read: their text, headings, links, code blocks and the commands that they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from deploy.server import TritonServer
from tests.products import ROOT, Product

README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    """How a page is called in the repository."""
    return str(page.relative_to(ROOT))


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [block for fenced, block in FENCE.findall(page.read_text()) if fenced == language]


def inline_code(page: Path) -> list[str]:
    """What stands between backticks outside of blocks, on one line each."""
    prose = FENCE.sub("", page.read_text())
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def links(page: Path) -> list[str]:
    """The targets of links and pictures that lead to files here."""
    prose = FENCE.sub("", page.read_text())
    return [target for target in LINK.findall(prose) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What a link's `#anchor` may name: the headings as GitHub writes them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_commands(page: Path) -> list[list[str]]:
    """The lines of `sh` blocks, split as a shell would."""
    lines = (line for block in code_blocks(page, "sh") for line in block.splitlines())
    return [shlex.split(line, comments=True) for line in lines]


def run_program(program: str, server: TritonServer, product: Product, *, folder: Path) -> list[str]:
    """Run a page's program on the tests' server and product in `folder`; the lines that it prints."""
    program = program.replace("localhost:8001", server.grpc_url).replace('"pill"', repr(product.name))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

"""A small published repository, users without rights, and the command in a process of its own."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import add_model
from tests.products import ROOT

NOBODY = 65534
ENSEMBLE = """
name: "{name}"
platform: "ensemble"
max_batch_size: 8
input [{{ name: "image" data_type: TYPE_UINT8 dims: [ -1 ] }}]
output [{{ name: "same" data_type: TYPE_UINT8 dims: [ -1 ] }}]
ensemble_scheduling {{
  step [{{
    model_name: "identity" model_version: -1
    input_map {{ key: "image" value: "image" }} output_map {{ key: "same" value: "same" }}
  }}]
}}
"""
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def publish(repository: Path) -> Path:
    """A repository that publishes `pill` over one Python model with two processes."""
    add_model(repository, "identity")
    config = repository / "identity" / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 2"))
    for name in ("pill", "pill_encoded"):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(ENSEMBLE.format(name=name))
    return repository


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return publish(tmp_path / "models")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights for the length of a `with` block."""
    if os.geteuid() != 0:
        yield
        return
    codecs.lookup("idna")  # of host names; Python lies where others may not enter
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def doctor(
    *arguments: str | Path, prelude: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m deploy doctor`, after a shell command in a mount namespace of its own where one is given."""
    command: Sequence[str] = (sys.executable, "-m", "deploy", "doctor", *map(str, arguments))
    if prelude:
        command = ("unshare", "--mount", "sh", "-c", f'{prelude} && exec "$@"', "sh", *command)
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment or dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def checks_of(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The checks of `--json` by name; the exit code fits to them."""
    said = json.loads(answer.stdout)
    checks = {check["name"]: check for check in said["checks"]}
    assert len(checks) == len(said["checks"])
    possible = "missing" not in {check["verdict"] for check in said["checks"]}
    assert said["serving"] is possible
    assert answer.returncode == (0 if possible else 1), answer.stderr
    return checks


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script that stands for a program on PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path

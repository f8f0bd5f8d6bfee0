"""A PC at the line installs the client alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.samples import make_prediction, save_image, write_jsonl
from tests.products import unused_url

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import client
names = [module.name for module in pkgutil.walk_packages(client.__path__, "client.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""
RUN = """
import json, sys
from click.testing import CliRunner
from client import JudgeClient
from client.__main__ import main
done = CliRunner().invoke(main, sys.argv[1:])
print(json.dumps({"output": done.output, "loaded": sorted(sys.modules)}))
"""
FOREIGN = (
    "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "scipy", "sklearn", "matplotlib", "pydantic",
    "train", "export", "deploy",
)  # fmt: skip


@pytest.fixture(scope="module")
def modules() -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True, timeout=120
    )
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def test_every_module_of_the_client_was_imported(modules: dict[str, list[str]]) -> None:
    assert {"client.__main__", "client.judging.connection", "client.report", "client.benchmark.run"} <= set(
        modules["imported"]
    )
    assert "tritonclient.grpc" in modules["loaded"]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_the_client_imports_none_of_what_training_needs(modules: dict[str, list[str]], foreign: str) -> None:
    assert foreign not in modules["loaded"]


def run(*arguments: object) -> dict[str, str]:
    """What a command printed, and the modules that its process has loaded."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_what_a_line_runs_never_loads_the_benchmark(tmp_path: Path) -> None:
    image, predictions = save_image(tmp_path / "a.png"), tmp_path / "predictions.jsonl"
    write_jsonl([make_prediction()], predictions)
    asked = run("predict", image, "--category", "pill", "--url", unused_url())
    assert "No Triton server answers" in asked["output"]
    reported = run("report", "--predictions", predictions, "--output", tmp_path / "served.html")
    assert "images judged" in reported["output"]
    for done in (asked, reported):
        assert not [name for name in done["loaded"] if name.startswith("client.benchmark")]
        assert "client.cli.bench" in done["loaded"]

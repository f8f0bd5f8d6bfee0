"""A PC at the line installs the client alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import client
names = [module.name for module in pkgutil.walk_packages(client.__path__, "client.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
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
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_every_module_of_the_client_was_imported(modules: dict[str, list[str]]) -> None:
    assert {"client.__main__", "client.judging.connection", "client.report", "client.benchmark.run"} <= set(
        modules["imported"]
    )
    assert "tritonclient.grpc" in modules["loaded"]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_the_client_imports_none_of_what_training_needs(modules: dict[str, list[str]], foreign: str) -> None:
    assert foreign not in modules["loaded"]

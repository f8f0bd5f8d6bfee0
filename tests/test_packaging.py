"""The wheel holds what the code needs, and a PC with the client alone asks the real server with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.server import TritonServer
from tests.products import ROOT, TIMEOUT_S, Product

pytestmark = [pytest.mark.slow, pytest.mark.triton]
pytest_plugins = ["tests.serving"]

PACKAGES = ("train", "export", "client", "deploy", "model_repository")
NOT_ON_THE_LINE = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "sklearn", "matplotlib")

PROGRAM = """
import sys
from client import JudgeClient, load_image
with JudgeClient(sys.argv[1], category=sys.argv[2], timeout_s=float(sys.argv[3])) as judge:
    verdict = judge.judge(load_image(sys.argv[4]))
    print(verdict.score, verdict.anomalous, verdict.release_id)
"""
INSTALLED = """
import sys
from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if find_spec(name)))
"""


def run(*command: object, cwd: Path, exits_with: int = 0) -> str:
    """What a command printed; the working tree is not on its path."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == exits_with, done.stderr
    return done.stdout


def tracked_files() -> list[str]:
    return run("git", "ls-files", *PACKAGES, cwd=ROOT).splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as setuptools leaves a build folder beside what it builds; with a published model in it."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", *tracked_files()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    shutil.copytree(copy / "model_repository" / "foreground", copy / "model_repository" / "published")
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=copy
    )
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def line(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that has the client alone."""
    folder = tmp_path_factory.mktemp("line")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    programs = folder / "env" / "bin"
    # By this environment's pip, and without compiling what these tests do not import.
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install")
    quick = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(*pip, *quick, "-c", ROOT / "constraints.txt", f"{wheel}[client]", cwd=folder)
    return programs


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(tracked_files())


def test_the_client_alone_brings_no_network_library(line: Path, tmp_path: Path) -> None:
    installed = run(line / "python", "-c", INSTALLED, "tritonclient", *NOT_ON_THE_LINE, cwd=tmp_path).split()
    assert installed == ["tritonclient"]


def test_a_program_gets_the_verdict_that_pytorch_gives(
    line: Path, server: TritonServer, edge: Product, tmp_path: Path
) -> None:
    path = edge.data.test[0].path
    printed = run(line / "python", "-c", PROGRAM, server.grpc_url, edge.name, TIMEOUT_S, path, cwd=tmp_path)
    score, anomalous, release_id = printed.split()
    assert float(score) == pytest.approx(float(edge.expected.pred_score[0, 0]), abs=1e-3)
    assert anomalous == str(bool(edge.expected.pred_label[0, 0]))
    assert release_id == str(edge.checkpoint.release_id)


def test_the_command_judges_a_folder_and_writes_the_page(
    line: Path, server: TritonServer, edge: Product, tmp_path: Path
) -> None:
    options = ("--category", edge.name, "--url", server.grpc_url, "--timeout-s", TIMEOUT_S)
    jsonl, page = tmp_path / "predictions.jsonl", tmp_path / "served.html"
    judged = run(
        line / "astmfr-client", "predict", edge.data.root / "test", *options, "--jsonl", jsonl, cwd=tmp_path,
        exits_with=int(edge.expected.pred_label.any()),
    )  # fmt: skip
    assert f"{len(edge.data.test)} judged: {int(edge.expected.pred_label.sum())} anomalous" in judged
    run(line / "astmfr-client", "report", "--predictions", jsonl, "--output", page, cwd=tmp_path)
    assert str(edge.checkpoint.release_id) in page.read_text()

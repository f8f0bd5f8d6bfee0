"""The same command inside the server's image; there is no docker here, so what is told to it is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.engines.container import build_command, builder_tag, run_command
from export.engines.tensorrt_builder import (
    load_tensorrt_rtx,
)
from export.engines.tensorrt_version import decode_version, installed_version
from tests.conftest import CATEGORY
from tests.products import ROOT


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


def test_the_container_runs_the_same_command(tmp_path: Path) -> None:
    """No docker here; the command line is what can be held to something."""
    image = "nvcr.io/nvidia/tritonserver:26.06-py3"
    tag = builder_tag(image)
    assert tag == builder_tag(image) != builder_tag(image + "-sdk")
    built = build_command("docker", tag, image)
    assert built[:2] == ["docker", "build"]
    assert Path(built[-1], "tensorrt_version.py").is_file()
    assert Path(built[built.index("--file") + 1]).read_text().count("FROM ") == 1
    command = run_command(
        "docker", tag, ["--category", "pill"], build_dir=tmp_path / "build", server_image=image
    )
    inside = command[command.index(tag) + 1 :]
    assert inside == [
        "python3", "-m", "export", "engine", "--category", "pill", "--build-dir", str(tmp_path / "build"),
    ]  # fmt: skip
    assert f"--volume={ROOT / 'export'}:/opt/astmfr/export:ro" in command
    assert "--gpus=all" in command


def test_docker_is_asked_once_and_gets_the_options_that_were_given(
    build_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docker that only writes down what it is told: the image is built where it is not there yet."""
    told = tmp_path / "told"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\n[ "$1" != image ] || exit $NO_IMAGE\n[ "$1" != run ] || exit 3\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/bin")
    monkeypatch.setenv("NO_IMAGE", "1")
    options = ("--category", CATEGORY, "--build-dir", build_dir, "--max-batch", "4", "--version-compatible")
    arguments = [str(argument) for argument in ("engine", *options, "--in-container")]
    assert CliRunner().invoke(main, arguments).exit_code == 3
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["image", "build", "run"]
    inside = told.read_text().splitlines()[-1].split("-m export engine ")[1]
    assert inside == f"--category {CATEGORY} --max-batch 4 --version-compatible --build-dir {build_dir}"
    told.unlink()
    monkeypatch.setenv("NO_IMAGE", "0")
    assert CliRunner().invoke(main, arguments).exit_code == 3
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["image", "run"]
    refused = CliRunner().invoke(main, [*arguments, "--check"])
    assert refused.exit_code == 2
    assert "--check needs no GPU and no container" in refused.output


def test_without_docker_it_says_what_to_install(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = run("engine", "--category", CATEGORY, "--build-dir", build_dir, "--in-container")
    assert "needs docker with NVIDIA's container toolkit" in said


def test_what_runs_in_the_container_needs_no_torch(build_dir: Path) -> None:
    """The image has click, pydantic, rich and TensorRT; here TensorRT for RTX checks the graphs in the same way."""
    missing = ("torch", "timm", "onnx", "onnxruntime", "numpy", "tritonclient", "safetensors", "PIL", "scipy")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from export.__main__ import main\n"
        f"main(['engine', '--check', '--category', {CATEGORY!r}, '--build-dir', {str(build_dir)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "student" in done.stdout


def test_the_image_asks_the_library_for_its_version() -> None:
    """Of the one TensorRT library that is here."""
    import tensorrt_rtx_libs

    library = next(Path(tensorrt_rtx_libs.__file__).parent.glob("libtensorrt_rtx.so.*"))
    found = installed_version((str(library),))
    assert load_tensorrt_rtx().__version__.startswith(f"{found}.")
    assert decode_version(101303) == "10.13.3"
    with pytest.raises(OSError, match="can be loaded"):
        installed_version(("libno_such_tensorrt.so",))

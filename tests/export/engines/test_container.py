"""`export engine` inside the server's image: there is no docker here, so the image's mounts and packages stand in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from export.__main__ import main
from export.engines.container import DOCKERFILE, build_command, builder_tag, run_command
from export.engines.tensorrt_builder import load_tensorrt_rtx
from export.engines.tensorrt_version import decode_version, installed_version
from model_repository.triton_release import SERVER_IMAGE
from tests.conftest import CATEGORY

OURS = {"astmfr", "tensorrt-rtx-cu12", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"}


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


def packages_of_the_image() -> set[str]:
    """What engine-builder.Dockerfile installs with pip, and what that requires."""
    wanted = re.findall(r"'([a-z]+)>=", DOCKERFILE.read_text())
    packages: set[str] = set()
    while wanted:
        package = canonicalize_name(wanted.pop())
        if package not in packages:
            packages.add(package)
            required = [Requirement(text) for text in requires(package) or ()]
            wanted += [
                need.name for need in required if not need.marker or need.marker.evaluate({"extra": ""})
            ]
    return packages


def run_without_docker(command: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    """What `docker run` would do: the mounted code under `root`, the command's environment, the image's packages."""
    at = next(index for index, word in enumerate(command) if word.startswith("astmfr-engine-builder:"))
    environment = {}
    for option, value in (word.split("=", 1) for word in command[:at] if "=" in word):
        if option == "--env":
            name, environment[name] = value.split("=", 1)
        elif option == "--volume" and value.endswith(":ro"):
            source, target = value.removesuffix(":ro").split(":")
            leave_out = shutil.ignore_patterns("__pycache__", "*.onnx", "*.plan")
            shutil.copytree(source, root / target.lstrip("/"), ignore=leave_out)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(root / environment["PYTHONPATH"].lstrip("/")), str(Path(click.__file__).parents[1])]
    )
    packages = packages_of_the_image() | OURS
    missing = [
        module
        for module, distributions in packages_distributions().items()
        if packages.isdisjoint(map(canonicalize_name, distributions))
    ]
    python, dash_m, module, *arguments = command[at + 1 :]
    assert (python, dash_m) == ("python3", "-m")
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({missing!r})); sys.argv[1:] = {arguments!r}\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    # -S: the project, installed for development, is not found beside what is mounted
    return subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def command_of(build_dir: Path, *arguments: str) -> list[str]:
    return run_command(
        "docker",
        builder_tag(SERVER_IMAGE),
        ["--category", CATEGORY, *arguments],
        build_dir=build_dir,
        server_image=SERVER_IMAGE,
    )


def test_the_command_runs_on_what_is_mounted_until_it_needs_tensorrt(build_dir: Path, tmp_path: Path) -> None:
    command = command_of(build_dir, "--max-batch", "4")
    assert "--gpus=all" in command
    assert f"--volume={build_dir}:{build_dir}" in command
    done = run_without_docker(command, tmp_path / "image")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: TensorRT, which builds engines for Triton, is not installed"), (
        done.stderr
    )


def test_the_builder_runs_on_what_is_mounted(build_dir: Path, tmp_path: Path) -> None:
    """The image has the packages of its Dockerfile; TensorRT for RTX checks the graphs in TensorRT's place."""
    done = run_without_docker(command_of(build_dir, "--check"), tmp_path / "image")
    assert done.returncode == 0, done.stderr
    assert "student" in done.stdout


def test_the_builder_image_is_made_from_files_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    command = build_command("docker", "tag", SERVER_IMAGE)
    context, dockerfile = Path(command[-1]), Path(command[command.index("--file") + 1]).read_text()
    copied = re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE)
    assert copied
    assert all((context / name).is_file() for name in copied)
    (argument,) = re.findall(r"^ARG (\w+)$", dockerfile, re.MULTILINE)
    assert f"{argument}={SERVER_IMAGE}" in command
    assert builder_tag(SERVER_IMAGE) != builder_tag(f"{SERVER_IMAGE}-sdk")


def test_another_dockerfile_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = builder_tag(SERVER_IMAGE)
    for file in (DOCKERFILE, DOCKERFILE.with_name("tensorrt_version.py")):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr("export.engines.container.DOCKERFILE", tmp_path / DOCKERFILE.name)
    assert builder_tag(SERVER_IMAGE) == before
    for file in sorted(tmp_path.iterdir()):
        file.write_text(file.read_text() + "# changed\n")
        assert builder_tag(SERVER_IMAGE) != before
        before = builder_tag(SERVER_IMAGE)


def test_docker_is_asked_once_and_gets_the_options_that_were_given(
    build_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docker that only writes down its arguments: the image is built where it does not exist yet."""
    calls = tmp_path / "calls"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n[ "$1" != image ] || exit $NO_IMAGE\n[ "$1" != run ] || exit 3\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/bin")
    monkeypatch.setenv("NO_IMAGE", "1")
    options = ("--category", CATEGORY, "--build-dir", build_dir, "--max-batch", "4", "--version-compatible")
    arguments = [str(argument) for argument in ("engine", *options, "--in-container")]
    assert CliRunner().invoke(main, arguments).exit_code == 3
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["image", "build", "run"]
    inside = calls.read_text().splitlines()[-1].split("-m export engine ")[1]
    assert inside == f"--category {CATEGORY} --max-batch 4 --version-compatible --build-dir {build_dir}"
    calls.unlink()
    monkeypatch.setenv("NO_IMAGE", "0")
    assert CliRunner().invoke(main, arguments).exit_code == 3
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["image", "run"]
    refused = CliRunner().invoke(main, [*arguments, "--check"])
    assert refused.exit_code == 2
    assert "--check needs no GPU and no container" in refused.output


def test_without_docker_it_says_what_to_install(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = run("engine", "--category", CATEGORY, "--build-dir", build_dir, "--in-container")
    assert "needs docker with NVIDIA's container toolkit" in message


def test_the_image_asks_the_library_for_its_version() -> None:
    """Of the one TensorRT library that is here."""
    import tensorrt_rtx_libs

    library = next(Path(tensorrt_rtx_libs.__file__).parent.glob("libtensorrt_rtx.so.*"))
    version = installed_version((str(library),))
    assert load_tensorrt_rtx().__version__.startswith(f"{version}.")
    assert decode_version(101303) == "10.13.3"
    with pytest.raises(OSError, match="can be loaded"):
        installed_version(("libno_such_tensorrt.so",))

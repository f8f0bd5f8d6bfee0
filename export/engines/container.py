"""`export engine` inside NVIDIA's Triton image: an engine runs only on the TensorRT that built it.

The image is the server's own with TensorRT's Python bindings added (engine-builder.Dockerfile), so that the
TensorRT that builds is the one that the server loads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from export.engines.build import IMAGE_VARIABLE
from export.errors import ExportError

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = Path(__file__).with_name("engine-builder.Dockerfile")
MOUNTED_CODE = "/opt/astmfr"
CODE_FOLDERS = ("export", "model_repository", "train")  # what `export engine` imports from, directly or not


def run_in_container(arguments: Sequence[str], *, build_dir: Path, server_image: str) -> int:
    """Run `python -m export engine` with these arguments inside the builder image; its exit status.

    Args:
        arguments: of `export engine`, but for --build-dir and those that say where to run.
        build_dir: what the container may write to.
        server_image: the Triton image that will load the engines.

    Raises:
        ExportError: no docker, or an image that cannot be built.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise ExportError(
            "--in-container needs docker with NVIDIA's container toolkit, and no docker is on PATH; install both, or "
            "run `export engine` where the server's TensorRT is installed."
        )
    builder = builder_tag(server_image)
    inspected = subprocess.run([docker, "image", "inspect", builder], capture_output=True, check=False)
    if inspected.returncode != 0:
        built = subprocess.run(build_command(docker, builder, server_image), check=False)
        if built.returncode != 0:
            raise ExportError(
                f"The builder image of {server_image} could not be made; docker says why above. Without internet, "
                f"make it on another machine and copy it with `docker save {builder}` and `docker load`."
            )
    return subprocess.run(
        run_command(docker, builder, arguments, build_dir=build_dir, server_image=server_image), check=False
    ).returncode


def builder_tag(server_image: str) -> str:
    """Name of the builder image; it changes with the server image and with the files that the image is made from."""
    made_from = DOCKERFILE.read_bytes() + (DOCKERFILE.parent / "tensorrt_version.py").read_bytes()
    digest = hashlib.sha256(made_from + server_image.encode()).hexdigest()
    return f"astmfr-engine-builder:{digest[:12]}"


def build_command(docker: str, builder: str, server_image: str) -> list[str]:
    """Make the builder image."""
    return [
        docker, "build", "--tag", builder, "--build-arg", f"SERVER_IMAGE={server_image}",
        "--file", str(DOCKERFILE), str(DOCKERFILE.parent),
    ]  # fmt: skip


def run_command(
    docker: str, builder: str, arguments: Sequence[str], *, build_dir: Path, server_image: str
) -> list[str]:
    """Run the command as this user, on this code, with the build folder at the same path as outside."""
    build = build_dir.resolve()
    terminal = ["--tty"] if sys.stderr.isatty() else []  # for the progress bar
    code = [f"--volume={ROOT / name}:{MOUNTED_CODE}/{name}:ro" for name in CODE_FOLDERS]
    return [
        docker, "run", "--rm", *terminal, "--gpus=all", f"--user={os.getuid()}:{os.getgid()}",
        *code, f"--volume={build}:{build}", f"--workdir={build.parent}",
        f"--env=PYTHONPATH={MOUNTED_CODE}", "--env=PYTHONDONTWRITEBYTECODE=1", f"--env={IMAGE_VARIABLE}={server_image}",
        builder, "python3", "-m", "export", "engine", *arguments, "--build-dir", str(build),
    ]  # fmt: skip

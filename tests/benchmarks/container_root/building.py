"""A root as the Dockerfile makes it, over Debian and the embedded server in place of NVIDIA's image."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.dockerfiles import Instruction
from tests.products import ROOT

MIRROR = "http://deb.debian.org/debian"
# What NVIDIA's image has beside the server: Python with pip and its library, and util-linux.
PACKAGES = "python3,python3-pip,libpython3.11,util-linux,ca-certificates"
DEVICES = ("null", "zero", "full", "random", "urandom")
WRAPPER = """#!/bin/sh
exec /opt/pytriton/pytriton/tritonserver/bin/tritonserver --backend-directory=/opt/tritonserver/backends "$@"
"""


@dataclass
class Image:
    """What the Dockerfile makes of a root.

    Attributes:
        root: its folder.
        environment: of what runs in it.
        workdir, user: where, and as whom.
        command, health: what the image starts, and what asks after it.
    """

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    workdir: str = "/"
    user: str = "0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def run(self, words: Sequence[str], **more: str) -> None:
        """Run a command in the root as its builder would, as root."""
        variables = [f"{name}={value}" for name, value in (self.environment | more).items()]
        subprocess.run(["chroot", str(self.root), "/usr/bin/env", "-i", *variables, *words], check=True)


def make_base(root: Path, wheels: Path) -> None:
    """Debian and the embedded server, in place of NVIDIA's image."""
    if not (root / "usr/bin/python3").exists():
        bootstrap = [
            "debootstrap",
            "--variant=minbase",
            f"--include={PACKAGES}",
            "bookworm",
            str(root),
            MIRROR,
        ]
        subprocess.run(bootstrap, check=True)
    (packed,) = wheels.glob("nvidia_pytriton-*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(root / "opt/pytriton")
    # Links, as `deploy prepare` makes them: the programs find their libraries from where they lie.
    server = Path("/opt/pytriton/pytriton/tritonserver")
    backend = root / "opt/tritonserver/backends/python"
    shutil.rmtree(backend, ignore_errors=True)
    backend.mkdir(parents=True)
    for target in (
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        "python_backend_stubs/3.11/triton_python_backend_stub",
    ):
        (backend / Path(target).name).symlink_to(server / target)
    inside = root / server.relative_to("/")
    for program in ("bin/tritonserver", "python_backend_stubs/3.11/triton_python_backend_stub"):
        (inside / program).chmod(0o755)
    wrapper = root / "usr/local/bin/tritonserver"
    wrapper.write_text(WRAPPER, encoding="utf-8")
    wrapper.chmod(0o755)
    for name in DEVICES:
        if not (root / "dev" / name).exists():
            os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, Path("/dev", name).stat().st_rdev)
        (root / "dev" / name).chmod(0o666)  # as everywhere: the umask has taken some of it


def fetch_wheels(wheels: Path) -> None:
    """Everything that the Dockerfile installs, so that the root needs no network."""
    wheels.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
    subprocess.run([*download, "--no-deps", "nvidia-pytriton==0.7.0"], check=True)
    subprocess.run([*download, "--requirement", str(ROOT / "deploy/step-requirements.txt")], check=True)
    constrained = [
        "--constraint",
        str(ROOT / "constraints.txt"),
        f"{ROOT}[deploy]",
        "setuptools>=77",
        "wheel",
    ]
    subprocess.run([*download, *constrained], check=True)


def follow(instructions: Sequence[Instruction], image: Image, wheels: Path) -> None:
    """Do what each instruction says, in order; the base and its argument aside."""
    shutil.copytree(wheels, image.root / "wheels", dirs_exist_ok=True)
    for name, text in instructions:
        click.echo(f"{name} {text}")
        if name == "COPY":
            *sources, target = text.split()
            for source in sources:
                copy_tracked(source, image.root / target.lstrip("/"), into=target.endswith("/"))
        elif name == "RUN":
            # SHELL's words; pip finds what the image would fetch beside the root.
            offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
            image.run(["/bin/bash", "-euo", "pipefail", "-c", text], **offline)
        elif name == "ENV":
            image.environment |= dict(word.partition("=")[::2] for word in text.split())
        elif name == "WORKDIR":
            (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            image.workdir = text
        elif name == "USER":
            image.user = text.partition(":")[0]
        elif name == "CMD":
            image.command = json.loads(text)
        elif name == "HEALTHCHECK":
            image.health = json.loads(text.partition(" CMD ")[2])
        elif name not in ("ARG", "FROM", "SHELL", "EXPOSE"):
            raise click.ClickException(f"The Dockerfile says {name}, which is not followed here.")
    shutil.rmtree(image.root / "wheels")


def copy_tracked(source: str, target: Path, *, into: bool) -> None:
    """What git has of a file or folder: like `.dockerignore`, without what was published or made here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", source], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        inner = Path(name).relative_to(source)
        place = target / Path(source).name / inner if into else target / inner
        place = place if inner.parts else (target / Path(source).name if into else target)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place)

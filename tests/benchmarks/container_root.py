"""The container's root, built without a container engine: the Dockerfile's steps in a Debian root, and served there.

NVIDIA's image is not to be had without an engine. In its place stands Debian 12 from its own packages, with the
embedded server as the `tritonserver` on PATH. Every COPY, RUN, ENV, WORKDIR and USER of `deploy/Dockerfile` is then
followed, and its CMD started: not as root, in a root file system that is read-only, with network, processes and
/dev/shm of its own. Its HEALTHCHECK has to succeed, an image to be judged, a step that is killed to be seen and mended,
and SIGTERM to end it with 0. It needs root, debootstrap and util-linux, and takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from model_repository.triton_release import EMBEDDED_VERSION
from tests.dockerfiles import Instruction, read_dockerfile

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
MIRROR = "http://deb.debian.org/debian"
# What NVIDIA's image has beside the server: Python with pip and its library, and util-linux.
PACKAGES = "python3,python3-pip,libpython3.11,util-linux,ca-certificates"
DEVICES = ("null", "zero", "full", "random", "urandom")
SHM_MIB = 256
PATIENCE_S = 120.0
WRAPPER = """#!/bin/sh
exec /opt/pytriton/pytriton/tritonserver/bin/tritonserver --backend-directory=/opt/tritonserver/backends "$@"
"""
# In namespaces of its own: nothing of it is seen outside, and all of it ends with it.
INSIDE = """set -euo pipefail
mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/dev/shm" "$root/models"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size="$shm" none "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m none "$root/tmp"
mount -t tmpfs -o mode=0755,uid="$user",gid="$user" none "$root/var/log/astmfr"
mount --bind "$repository" "$root/models"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i --chdir="$workdir" "$@"
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


class Served:
    """The image's command, running in namespaces of its own."""

    def __init__(self, image: Image, repository: Path, log: Path) -> None:
        """Start it."""
        self._image = image
        variables = {
            "root": str(image.root),
            "repository": str(repository.absolute()),
            "user": image.user,
            "workdir": image.workdir,
            "shm": f"{SHM_MIB}m",
        }
        inside = [f"{name}={value}" for name, value in image.environment.items()]
        namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
        words = ["bash", "-c", INSIDE, "inside", *inside, *image.command, "--insecure"]
        self._output = log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [*namespaces, *words], env=os.environ | variables, stdout=self._output, stderr=subprocess.STDOUT
        )

    @property
    def first(self) -> int:
        """Process id, outside, of what is process 1 inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while self.process.poll() is None:
            if numbers := children.read_text(encoding="utf-8").split():
                return int(numbers[0])
            time.sleep(0.05)  # the namespaces are being made
        raise click.ClickException(f"It ended by itself; see {self._output.name}.")

    def healthy(self) -> bool:
        """Whether the image's own health check succeeds."""
        enter = ["nsenter", "--mount", "--pid", "--net", "--root", "--target", str(self.first), "--"]
        done = subprocess.run([*enter, *self._image.health], capture_output=True, check=False)
        return done.returncode == 0

    def becomes(self, healthy: bool) -> float:
        """Seconds until its health is so.

        Raises:
            ClickException: it is not in time, or has ended.
        """
        began = time.monotonic()
        while self.process.poll() is None:
            if self.healthy() == healthy:
                return time.monotonic() - began
            if time.monotonic() > began + PATIENCE_S:
                break
            time.sleep(0.1)
        raise click.ClickException(f"It was not {'healthy' if healthy else 'unhealthy'} in time.")

    def judge(self, image: Path, category: str) -> str:
        """What the client says of an image, from outside of the root and inside its network."""
        enter = ["nsenter", "--net", "--target", str(self.first), "--"]
        asking = [sys.executable, "-m", "client", "predict", str(image), "--category", category]
        done = subprocess.run(
            [*enter, *asking, "--url", "localhost:8001"],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return done.stdout + done.stderr

    def kill_a_step(self) -> None:
        """End one of its Python steps' processes, as a fault would."""
        inside = Path(f"/proc/{self.first}/ns/pid").readlink()
        for name in Path("/proc").glob("[0-9]*/comm"):
            with_stub = name.read_text(encoding="utf-8").startswith("triton_python")
            if with_stub and (name.parent / "ns/pid").readlink() == inside:
                os.kill(int(name.parent.name), signal.SIGKILL)
                return

    def stop(self) -> int:
        """End it as a container engine does; its exit code."""
        if self.process.poll() is None:
            os.kill(self.first, signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self._output.close()
        return code


@click.command()
@click.option("--repository", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--category", required=True)
@click.option("--image", "picture", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--work", type=click.Path(path_type=Path), required=True, help="Folder of the root and the wheels."
)
def main(repository: Path, category: str, picture: Path, work: Path) -> None:
    """Build the root of `deploy/Dockerfile`, and serve a repository in it."""
    if os.getuid() != 0 or shutil.which("debootstrap") is None:
        raise click.ClickException("It needs root, and the Debian package debootstrap.")
    wheels, image = work / "wheels", Image((work / "root").absolute())
    if not wheels.exists():
        fetch_wheels(wheels)
    make_base(image.root, wheels)
    follow(read_dockerfile(DOCKERFILE), image, wheels)
    size = subprocess.run(["du", "-sm", str(image.root)], capture_output=True, encoding="utf-8", check=True)
    click.echo(
        f"The root has {size.stdout.split()[0]} MiB; tritonserver {EMBEDDED_VERSION} in place of NVIDIA's."
    )
    tell(Served(image, repository, work / "served.log"), picture, category)


def tell(served: Served, picture: Path, category: str) -> None:
    """Ask what is to be asked of it, and end it."""
    try:
        click.echo(f"healthy after {served.becomes(True):.1f} s")
        click.echo(served.judge(picture, category))
        served.kill_a_step()
        click.echo(f"unhealthy {served.becomes(False):.1f} s after a step was killed")
        click.echo(f"healthy again {served.becomes(True):.1f} s later")
    finally:
        click.echo(f"SIGTERM ended it with {served.stop()}")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks.container_root")

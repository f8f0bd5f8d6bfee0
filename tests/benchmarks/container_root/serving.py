"""The command of a root, running in namespaces of its own, and what is asked of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from client.cli.predict import ANOMALIES, GOOD
from tests.benchmarks.container_root.building import Image
from tests.products import ROOT

SHM_MIB = 256
PATIENCE_S = 120.0
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

    def judge(self, image: Path, category: str, *options: str) -> str:
        """What the client says of an image, from outside of the root and inside its network.

        Raises:
            ClickException: it is not judged.
        """
        enter = ["nsenter", "--net", "--target", str(self.first), "--"]
        asking = [sys.executable, "-m", "client", "predict", str(image), "--category", category]
        done = subprocess.run(
            [*enter, *asking, "--url", "localhost:8001", *options],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode not in (GOOD, ANOMALIES):
            raise click.ClickException(f"{image} was not judged: {done.stdout + done.stderr}")
        return done.stdout

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

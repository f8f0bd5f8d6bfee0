"""Build the root of `deploy/Dockerfile`, serve there, and ask."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from model_repository.triton_release import EMBEDDED_VERSION
from tests.benchmarks.container_root.building import Image, fetch_wheels, follow, make_base
from tests.benchmarks.container_root.serving import Served
from tests.dockerfiles import read_dockerfile
from tests.products import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@click.command()
@click.option("--repository", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--judge",
    "asked",
    type=(str, click.Path(path_type=Path, exists=True)),
    multiple=True,
    required=True,
    metavar="CATEGORY IMAGE",
    help="Of an image of a category; may be given for several, one whose pictures are aligned, say.",
)
@click.option(
    "--work", type=click.Path(path_type=Path), required=True, help="Folder of the root and the wheels."
)
def main(repository: Path, asked: Sequence[tuple[str, Path]], work: Path) -> None:
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
    tell(Served(image, repository, work / "served.log"), asked)


def tell(served: Served, asked: Sequence[tuple[str, Path]]) -> None:
    """Ask what is to be asked of it, and end it."""
    try:
        click.echo(f"healthy after {served.becomes(True):.1f} s")
        for category, picture in asked:
            click.echo(served.judge(picture, category))
            click.echo(served.judge(picture, category, "--encoded"))
        served.kill_a_step()
        click.echo(f"unhealthy {served.becomes(False):.1f} s after a step was killed")
        click.echo(f"healthy again {served.becomes(True):.1f} s later")
    finally:
        click.echo(f"SIGTERM ended it with {served.stop()}")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks.container_root")

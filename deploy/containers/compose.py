"""`python -m deploy up` and `down`: the containers of `deploy/compose.yaml`, with what the published models need."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from deploy.errors import CommandError, RepositoryError
from deploy.protection.secrets import NAME, new_key
from deploy.repository import find_categories, first_models, require_plain_path, require_published
from deploy.serving_options import PATH, repository_option
from deploy.supervision.shared_memory import region_bytes
from model_repository.category_names import is_safe_name, unsafe_name
from model_repository.trace_collector import ENDPOINT, HEADERS
from model_repository.triton_release import SERVER_IMAGE, TRITON_RELEASE

COMPOSE = Path(__file__).parents[1] / "compose.yaml"
PROJECT = "astmfr"
IMAGES_USER = (1000, 1000)  # Triton's in its own image; in place of root
LEAST_SHM_BYTES = 64 << 20  # what a container has unless told otherwise
MIB = 1 << 20
ENGINES = ("docker", "podman")


@click.command()
@repository_option
@click.option(
    "--profile",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    help="gpu reserves NVIDIA's GPUs for the server.",
)
@click.option(
    "--state",
    default="logs/containers",
    type=PATH,
    help="Folder with the containers' logs, the page's history, and the keys, which are made where they are missing.",
)
def up(repository: Path, profile: str, state: Path) -> None:
    """Build and start Triton, the page, Prometheus and Grafana as containers; only this machine reaches them."""
    require_published(repository)
    engine = _engine()
    user = container_user()
    prepare_state(state, user)
    variables = compose_variables(repository, state, user)
    _run(
        [engine, "compose", "--file", str(COMPOSE), "--profile", profile, "up", "--build", "--detach"],
        variables,
    )
    click.echo(
        "Started: gRPC localhost:8001, HTTP localhost:8000, page http://localhost:8080, Grafana "
        f"http://localhost:3000, Prometheus http://localhost:9090; `make down` stops them. Keys lie in {state}: "
        "admin.key opens the server's controls, page.tokens the page."
    )


@click.command()
def down() -> None:
    """Stop and remove the containers that `up` started; what they have stored stays."""
    _run(
        [_engine(), "compose", "--project-name", PROJECT, "--file", str(COMPOSE), "--profile", "*", "down"],
        UNUSED,
    )


def compose_variables(repository: Path, state: Path, user: tuple[int, int]) -> dict[str, str]:
    """What `deploy/compose.yaml` is filled in with.

    Raises:
        RepositoryError: the repository cannot be served.
    """
    require_plain_path(repository)
    names = find_categories(repository)
    if unsafe := next((name for name in names if not is_safe_name(name)), None):
        raise RepositoryError(f"{repository} holds the category {unsafe_name(unsafe)}.")
    return {
        "TRITON_RELEASE": TRITON_RELEASE,
        "SERVER_IMAGE": SERVER_IMAGE,
        "REPOSITORY": str(repository.absolute()),
        "STATE": str(state.absolute()),
        "CONTAINER_USER": f"{user[0]}:{user[1]}",
        "SHM_BYTES": str(shared_memory_bytes(repository)),
        **{name: os.environ.get(name, "") for name in (ENDPOINT, HEADERS)},
        "PAGE_CATEGORIES": " ".join(f"--category {name}" for name in names),
    }


# To stop containers, compose wants every variable and looks at none.
VARIABLES = "TRITON_RELEASE SERVER_IMAGE REPOSITORY STATE CONTAINER_USER SHM_BYTES PAGE_CATEGORIES"
UNUSED = dict.fromkeys([*VARIABLES.split(), ENDPOINT, HEADERS], "0")


def shared_memory_bytes(repository: Path) -> int:
    """Bytes of /dev/shm for a server of all that is published: full batches, and twice what its steps begin with.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    first, full = region_bytes(repository, first_models(repository, 0))
    return -(-max(full, 2 * first, LEAST_SHM_BYTES) // MIB) * MIB


def container_user() -> tuple[int, int]:
    """Who the containers are: whoever calls, as the files are theirs; Triton's own user in place of root."""
    user, group = os.getuid(), os.getgid()
    return IMAGES_USER if user == 0 else (user, group)


def prepare_state(state: Path, user: tuple[int, int]) -> None:
    """Make the folders that the containers write, and the keys that are missing.

    Raises:
        CommandError: they cannot be written.
    """
    tokens = f"viewer={secrets.token_urlsafe(24)}\neditor={secrets.token_urlsafe(24)}\n"
    files = {"admin.key": f"{NAME}={new_key()}\n", "page.tokens": tokens}
    try:
        for folder in (state, state / "triton", state / "page"):
            folder.mkdir(parents=True, exist_ok=True)
            _give(folder, user)
        for name, text in files.items():
            if not (state / name).exists():
                _write_secret(state / name, text)
            _give(state / name, user)
    except OSError as error:
        raise CommandError(
            f"{error.filename or state} cannot be written ({error.strerror}); name another folder with --state."
        ) from None


def _write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone may read; it has its name once it is whole."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)


def _give(path: Path, user: tuple[int, int]) -> None:
    if os.getuid() == 0:
        os.chown(path, *user)


def _engine() -> str:
    for name in ENGINES:
        if shutil.which(name):
            return name
    raise CommandError(
        f"no container engine is on PATH ({' or '.join(ENGINES)}); install one with its compose, or serve without "
        "containers with `make serve`."
    )


def _run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=os.environ | variables, check=False)
    if done.returncode != 0:
        raise CommandError(
            f"`{' '.join(command[:2])}` ended with exit code {done.returncode}; it says why above."
        )

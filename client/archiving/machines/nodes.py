"""What the machines of a cluster have: versions, and the images. Compared before anything is judged."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import client
import model_repository.grpc_endpoint
from client.archiving.plan import END
from client.core.errors import RequestError

PACKAGES = ("ray", "pyarrow", "pillow")  # the last one turns files into pixels
MOST_LOOKED_FOR = 200  # images, one a folder
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Look:
    """What a machine has.

    Attributes:
        node: its name and address.
        versions: of Python, this project and the packages that count, by name.
        missing: images, of those that were looked for, that are not there.
    """

    node: str
    versions: dict[str, str]
    missing: frozenset[bytes] = frozenset()


def look_around(images: Collection[bytes]) -> Look:
    """What this machine has; which of some images are not there."""
    missing = frozenset(path for path in images if not os.path.exists(path))  # noqa: PTH110 (bytes)
    return Look(f"{socket.gethostname()} ({_address()})", versions_here(), missing)


def versions_here() -> dict[str, str]:
    """The versions by which two machines give the same rows."""
    major, minor, _ = platform.python_version_tuple()
    versions = {"Python": f"{major}.{minor}", "astmfr": f"{project_version()}, code {_code_id()}"}
    return versions | {name: _version(name) for name in PACKAGES}


def project_version() -> str:
    """Of this project, as it is installed."""
    return _version("astmfr")


def one_a_folder(paths: bytes) -> list[bytes]:
    """Images to look for: the first of each folder, of many folders some that are evenly spread.

    Args:
        paths: in their order, each ended by a zero byte.
    """
    firsts: dict[bytes, bytes] = {}
    for path in paths.split(END)[:-1]:
        firsts.setdefault(os.path.dirname(path), path)  # noqa: PTH120 (bytes)
    every = list(firsts.values())
    return every[:: -(-len(every) // MOST_LOOKED_FOR)]


def fault_of(here: Look, others: Sequence[Look]) -> str | None:
    """Why the machines cannot work together, in one sentence; None where they can.

    An image that no machine has is no fault of theirs: its row says that it is not there.
    """
    for other in others:
        differing = [name for name, found in here.versions.items() if other.versions.get(name) != found]
        if differing:
            theirs = ", ".join(f"{name} {other.versions.get(name, NOT_INSTALLED)}" for name in differing)
            ours = ", ".join(f"{name} {here.versions[name]}" for name in differing)
            return (
                f"Node {other.node} has {theirs}, and {here.node}, where this was started, has {ours}; install the "
                "same on all nodes (pip install 'astmfr[archive]')."
            )
    looked_for = frozenset[bytes]().union(*(each.missing for each in (here, *others)))
    for path in sorted(looked_for):
        lacks = [other.node for other in others if path in other.missing]
        has = next((each.node for each in (here, *others) if path not in each.missing), None)
        if lacks and has:
            return (
                f"{os.fsdecode(path)} is not there on node {lacks[0]}, and it is on {has}; make its folder known on "
                "all nodes under the same path."
            )
    return None


def require_alike(images: list[bytes]) -> None:
    """Make sure that all machines of the cluster have this one's versions, and the images.

    Raises:
        RequestError: one does not.
    """
    if fault := fault_of(look_around(images), _look_at_nodes(images)):
        raise RequestError(fault)


def _look_at_nodes(images: list[bytes]) -> list[Look]:
    """What each machine of the cluster has."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    missing_project = {"astmfr": NOT_INSTALLED}

    # In here, so that Ray sends the function itself: a machine without this project says so.
    def look(images: list[bytes]) -> Any:
        import socket

        try:
            from client.archiving.machines.nodes import look_around
        except ImportError:
            return socket.gethostname(), missing_project, frozenset()
        look = look_around(images)
        return look.node, look.versions, look.missing

    task = ray.remote(num_cpus=0, max_retries=1)(look)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            images
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        return [Look(*each) for each in ray.get(asked)]
    except Exception as error:
        raise RequestError(f"A node of the cluster runs no task ({first_words(error)}).") from None


def first_words(error: Exception) -> str:
    """What an error says, on one line: Ray's have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4]).rstrip(". ") or type(error).__name__


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def _code_id() -> str:
    """By which another state of the code is known, under the same version."""
    ours = Path(client.__file__).parent
    theirs = Path(model_repository.grpc_endpoint.__file__).parent
    files = [*ours.rglob("*.py"), *theirs.glob("*.py"), *(theirs / "image_decoder").glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:8]


def _address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "address unknown"

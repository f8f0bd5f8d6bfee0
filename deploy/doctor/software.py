"""The server's software: tritonserver, its backends, its libpython and other shared libraries."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.doctor.check import Check, missing, not_known, refused
from deploy.doctor.needs import Needs
from deploy.errors import InstallationError
from deploy.installation import Installation, find_installation, missing_libraries

LIBPYTHON = re.compile(r"libpython[\d.]+\.so\.1\.0")
OFFLINE = (
    "Without a network: `pip download -r deploy/triton-requirements.txt -d wheels` elsewhere, and here "
    "`PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make setup`."
)
CONTAINER_BACKENDS = Path("/opt/tritonserver/backends")  # where tritonserver looks unless told otherwise


@dataclass(frozen=True)
class Server:
    """The tritonserver that `serve` would start.

    Attributes:
        embedded: Whether it is pytriton's, which has the Python backend alone.
        backends: Folder of its backends.
        stub: The program that runs a Python model.
    """

    installation: Installation
    embedded: bool
    backends: Path
    stub: Path

    @property
    def binary(self) -> Path:
        """The program itself, behind links."""
        return Path(self.installation.command[0]).resolve()


def find_server(triton_env: Path) -> Server:
    """The server that `serve` would start; links in `triton_env` are made as `serve` makes them.

    Raises:
        InstallationError: there is none, or it cannot run here.
    """
    installation = find_installation(triton_env)
    embedded = shutil.which("tritonserver") is None
    beside = Path(installation.command[0]).resolve().parents[1] / "backends"
    backends = beside if beside.is_dir() else CONTAINER_BACKENDS
    of_stub = triton_env / "server" / "backends" if embedded else backends
    return Server(
        installation, embedded, backends, of_stub.absolute() / "python" / "triton_python_backend_stub"
    )


def check_server(server: Server | InstallationError) -> Check:
    """Whether there is a tritonserver that can be started."""
    name = "tritonserver"
    if isinstance(server, Server):
        return Check(name, server.installation.origin)
    if lacks_libpython(server):
        return not_known(name, "its Python library is missing, see there")
    check = refused(name, server)
    return replace(check, remedy=f"{check.remedy} {OFFLINE}") if "make setup" in check.remedy else check


def check_python_library(server: Server | InstallationError) -> Check:
    """Whether the stub that runs Python models finds its libpython."""
    name = "Python library"
    if isinstance(server, InstallationError):
        if lacks_libpython(server):
            return refused(name, server)
        return not_known(name, "there is no tritonserver that could be asked")
    if not server.stub.exists():
        return not_known(name, f"there is no {server.stub}")
    lacking = missing_libraries(server.stub, server.installation.environment)
    if any(LIBPYTHON.fullmatch(library) for library in lacking):
        package = lacking[0].partition(".so")[0]
        remedy = f"Install the Debian or Ubuntu package {package} that brings it."
        return missing(name, f"{lacking[0]}, which the server's stub needs, is not there", remedy)
    # The libraries that a program names lie in it as text.
    named = LIBPYTHON.search(server.stub.read_bytes().decode("latin-1"))
    return Check(name, f"{named[0] if named else 'that of the stub'} is there")


def check_libraries(server: Server) -> Check:
    """Whether the loader finds every shared library of the server and its stub."""
    name = "shared libraries"
    programs = [program for program in (server.binary, server.stub) if program.exists()]
    environment = server.installation.environment
    lacking = {library for program in programs for library in missing_libraries(program, environment)}
    if lacking:
        found = f"{', '.join(sorted(lacking))} not found, which tritonserver needs"
        return missing(
            name, found, "Install the packages that bring them, or put their folder on LD_LIBRARY_PATH."
        )
    return Check(name, f"all that {' and '.join(program.name for program in programs)} need")


def check_backends(server: Server, needs: Needs) -> Check:
    """Whether the server has a backend for every published model."""
    name = "backends"
    if not server.backends.is_dir():
        return not_known(name, f"there is no folder {server.backends}")
    present = {folder.name for folder in server.backends.iterdir() if folder.is_dir()}
    if lacking := sorted(needs.backends - present):
        remedy = (
            "Start the server in NVIDIA's Triton container, or publish again with --platform python into a new "
            "--repository."
        )
        found = f"{', '.join(sorted(present))}; what is published also needs {', '.join(lacking)}"
        return missing(name, found, remedy)
    return Check(name, ", ".join(sorted(present)))


def lacks_libpython(error: InstallationError) -> bool:
    """Whether it is the stub's Python library that the server cannot be started for."""
    return LIBPYTHON.search(error.message) is not None

"""Make every check, in the order in which a fault would show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.doctor.check import Check, not_known
from deploy.doctor.glibc import check_glibc
from deploy.doctor.gpu import check_container_engine, check_driver, check_gpu, check_tensorrt, find_gpus
from deploy.doctor.needs import Needs, read_needs
from deploy.doctor.packages import check_packages
from deploy.doctor.processor import check_cores, check_flags
from deploy.doctor.repository import check_clock, check_repository
from deploy.doctor.software import (
    Server,
    check_backends,
    check_libraries,
    check_python_library,
    check_server,
    find_server,
)
from deploy.doctor.system import check_disk, check_log, check_ports, check_shared_memory
from deploy.errors import InstallationError, RepositoryError
from deploy.ports import Ports


@dataclass(frozen=True)
class Plan:
    """The server that somebody means to start; the same options as of `serve`."""

    repository: Path
    host: str
    ports: Ports
    log: Path
    triton_env: Path


def examine(plan: Plan) -> list[Check]:
    """What this machine has and lacks for this server."""
    checks = [_made("repository", partial(check_repository, plan.repository))]
    needs = _needs(plan.repository)
    checks += _software(plan.triton_env, needs)
    for name, make in (
        ("CPU flags", check_flags),
        ("CPU cores", check_cores),
        ("/dev/shm", partial(check_shared_memory, needs)),
        ("disk", partial(check_disk, plan.repository)),
        ("log", partial(check_log, plan.log)),
        ("clock", partial(check_clock, plan.repository)),
    ):
        checks.append(_made(name, make))
    return [*checks, *_ports(plan)]


def _software(triton_env: Path, needs: Needs) -> Iterator[Check]:
    server = _server(triton_env)
    yield _made("tritonserver", partial(check_server, server))
    yield _made("Python library", partial(check_python_library, server))
    yield _made("glibc", partial(check_glibc, server))
    if isinstance(server, Server):
        yield _made("shared libraries", partial(check_libraries, server))
        yield _made("Python packages", partial(check_packages, server, needs))
        yield _made("backends", partial(check_backends, server, needs))
    else:
        for name in ("shared libraries", "Python packages", "backends"):
            yield not_known(name, "there is no tritonserver that could be asked")
    gpus = find_gpus()
    yield _made("GPU", partial(check_gpu, gpus, needs))
    yield _made("driver", partial(check_driver, gpus, needs, server))
    yield _made("TensorRT", partial(check_tensorrt, needs))
    yield _made("container engine", partial(check_container_engine, needs, server))


def _ports(plan: Plan) -> Sequence[Check]:
    try:
        return check_ports(plan.host, plan.ports)
    except OSError as error:
        return [not_known("ports", str(error))]


def _made(name: str, make: Callable[[], Check]) -> Check:
    """A check, or why it could not be made."""
    try:
        return make()
    except (OSError, ValueError) as error:
        return not_known(name, str(error))


def _server(triton_env: Path) -> Server | InstallationError:
    try:
        return find_server(triton_env)
    except InstallationError as error:
        return error
    except OSError as error:
        return InstallationError(
            f"{triton_env} cannot be looked into ({error.strerror}); let this user enter it, or give another with "
            "--triton-env."
        )


def _needs(repository: Path) -> Needs:
    """Nothing is asked for where nothing can be read, which the check of the repository says."""
    try:
        return read_needs(repository)
    except (RepositoryError, OSError):
        return Needs()

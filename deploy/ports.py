"""Ports for the server: free ones are picked, and one in use is reported with the process that listens on it."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from deploy.errors import PortError
from deploy.protection.protection import LOCAL, Protection
from deploy.tracing.tracing import OFF, Tracing


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The three TCP ports of a server; 0 asks for a free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


@dataclass(frozen=True)
class Place:
    """Where a server listens and to whom, and where its output and spans go; as of `deploy.server.running_server`."""

    host: str
    ports: Ports
    log: Path
    protection: Protection = LOCAL
    tracing: Tracing = OFF


def host_address(host: str) -> str:
    """IPv4 address of a host: the server listens on addresses alone.

    Raises:
        PortError: the name is not known.
    """
    if not host.strip():  # which the system takes for every address
        raise PortError("--host is empty; give 127.0.0.1 for this machine alone, 0.0.0.0 for every address.")
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no host's name"
        raise PortError(f"host {host} has no IPv4 address ({reason}); give another --host.") from None


def claim_ports(host: str, ports: Ports) -> Ports:
    """Check that the given ports are free on `host` (an IPv4 address) and pick the others.

    All are opened at once and then closed, so the picked ones differ; the server must take them soon.

    Raises:
        PortError: a port is in use, is given twice, or cannot be listened on.
    """
    asked = asdict(ports)
    claimed: dict[str, int] = {}
    with contextlib.ExitStack() as listeners:
        # Given ports first, or a picked one could take the place of one still to come.
        for service in sorted(asked, key=lambda service: asked[service] == 0):
            port = asked[service]
            if port and port in claimed.values():
                raise PortError(
                    f"port {port} is given to two services; --{service}-port needs one of its own."
                )
            listener = listeners.enter_context(_listen(service, host, port))
            claimed[service] = listener.getsockname()[1]
    return Ports(**claimed)


def port_holder(port: int) -> str | None:
    """Command line and process id of the process that listens on a TCP port; None when it cannot be seen."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and port in connection.laddr
        if listens and connection.pid is not None:
            with contextlib.suppress(psutil.Error):  # it has just ended
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"'{' '.join(command.split())[:80]}' (process {connection.pid})"
    return None


def _listen(service: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            reason = str(error.strerror).partition(" (while")[0]
            raise PortError(
                f"port {port} of {host} cannot be listened on ({reason}); "
                f"give another with --{service}-port or --host."
            ) from None
    holder = port_holder(port) or "a process that cannot be seen from here"
    raise PortError(
        f"port {port} of {host} is in use by {holder}; stop it or give another port with --{service}-port."
    )

"""Options of `serve` and `run` that say who may connect."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deploy.errors import ProtectionError
from deploy.ports import host_address
from deploy.protection.certificates import Certificates
from deploy.protection.protection import Protection
from deploy.protection.secrets import NAME
from model_repository.grpc_endpoint import KEY_FILE, KEYS

PATH = click.Path(path_type=Path)
NAMES = ("tls_cert", "tls_key", "tls_client_ca", "key_file", "insecure", "client_shm", "connection_age_s")

_options = (
    click.option("--tls-cert", type=PATH, help="The server's certificate, PEM: gRPC is encrypted with it."),
    click.option("--tls-key", type=PATH, help="Its private key, PEM, readable by its owner alone."),
    click.option(
        "--tls-client-ca",
        type=PATH,
        help="Clients must show a certificate of this authority, PEM (mutual TLS).",
    ),
    click.option(
        "--key-file",
        type=PATH,
        envvar=KEY_FILE,
        show_envvar=True,
        help=f"File with a line {NAME}=<key>: model control, statistics, traces and logs are refused without it. "
        f"{KEYS} takes that line too.  [default: open on this machine, closed to others]",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Listen on another address than this machine's own without TLS.",
    ),
    click.option("--client-shm", is_flag=True, help="Let clients send images through shared memory."),
    click.option(
        "--connection-age-s",
        default=0.0,
        type=click.FloatRange(0, 86400),
        help="Seconds after which a gRPC connection is closed, once it has answered, so that clients find servers that "
        "were added; 0: never.",
    ),
)


@dataclass(frozen=True)
class ProtectionOptions:
    """What the options say; `protection` checks it."""

    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    key_file: Path | None
    insecure: bool
    client_shm: bool
    connection_age_s: float

    def protection(self, host: str) -> tuple[Protection, list[str]]:
        """The protection of a server on a host, and what to tell people about it.

        Raises:
            PortError: the host is not known.
            ProtectionError: the options do not fit together, a file cannot be used, or the address would be open.
        """
        certificates, told = self.named_certificates(), []
        if certificates and (ends := certificates.check()):
            told.append(ends)
        address = host_address(host)
        protection = Protection.choose(
            address,
            certificates=certificates,
            key_file=self.key_file,
            insecure=self.insecure,
            client_shm=self.client_shm,
            connection_age_s=self.connection_age_s,
        )
        if self.insecure and certificates is None and not address.startswith("127."):
            told.append(
                f"gRPC and HTTP on {address} are not encrypted: who is in between reads and changes verdicts"
            )
        return protection, told

    def named_certificates(self) -> Certificates | None:
        """The files that are named, which are not read here.

        Raises:
            ProtectionError: one of a pair is missing.
        """
        if self.tls_cert is None and self.tls_key is None:
            if self.tls_client_ca is not None:
                raise ProtectionError("--tls-client-ca asks for TLS; give --tls-cert and --tls-key too.")
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise ProtectionError("A certificate goes with its key; give both --tls-cert and --tls-key.")
        client_ca = self.tls_client_ca and self.tls_client_ca.absolute()
        return Certificates(self.tls_cert.absolute(), self.tls_key.absolute(), client_ca)


def protection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, as one argument `protecting`."""

    @functools.wraps(command)
    def with_protection(*arguments: Any, **options: Any) -> Any:
        protecting = ProtectionOptions(**{name: options.pop(name) for name in NAMES})
        return command(*arguments, protecting=protecting, **options)

    decorated: Callable[..., Any] = with_protection
    for option in reversed(_options):
        decorated = option(decorated)
    return decorated

"""How a server is protected: on this machine alone, or encrypted, with its controls behind a key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import ProtectionError
from deploy.protection.certificates import Certificates
from deploy.protection.secrets import NAME, new_key, read_admin_key

LOOPBACK = "127.0.0.1"
# What changes a server or shows what it does; judging needs none of it.
CONTROLS = ("model-repository", "statistics", "trace", "logging")
SHARED_MEMORY = "shared-memory"
AGE_GRACE_MS = 60_000  # for what a connection that has become too old still answers


@dataclass(frozen=True)
class Protection:
    """What a server lets others do; nothing stated is for programs of the machine itself.

    Attributes:
        certificates: what gRPC is encrypted with; None for none.
        admin_key: what opens the controls.
        controls_open: whether they are open without the key.
        client_shm: whether clients may name regions of shared memory.
        connection_age_s: seconds after which a client has to connect anew; 0 for never.
    """

    certificates: Certificates | None = None
    admin_key: str = field(default_factory=new_key, repr=False)
    controls_open: bool = True
    client_shm: bool = False
    connection_age_s: float = 0.0

    @classmethod
    def choose(
        cls,
        address: str,
        *,
        certificates: Certificates | None = None,
        key_file: Path | None = None,
        insecure: bool = False,
        client_shm: bool = False,
        connection_age_s: float = 0.0,
    ) -> Protection:
        """The protection of a server that listens on an IPv4 address.

        Its controls are open on loopback where no key is stated. On any other address they are closed then: only the
        server's own supervisor has the key.

        Raises:
            ProtectionError: the address is not loopback, and there are neither certificates nor `insecure`; or a file
                cannot be used.
        """
        stated = read_admin_key(key_file)
        local = ipaddress.ip_address(address).is_loopback
        if not (local or certificates or insecure):
            raise ProtectionError(
                f"On {address} the network could read and change every picture and verdict; give --tls-cert and "
                "--tls-key, or say --insecure where something else protects it."
            )
        return cls(certificates, stated or new_key(), local and stated is None, client_shm, connection_age_s)

    @property
    def http_address(self) -> str | None:
        """Where HTTP listens, which Triton does not encrypt; None for where gRPC does."""
        return LOOPBACK if self.certificates else None

    def server_options(self) -> list[str]:
        """Options of tritonserver."""
        closed = () if self.controls_open else CONTROLS
        if not self.client_shm:
            closed = (*closed, SHARED_MEMORY)
        options = []
        if closed:
            rule = f"{','.join(closed)}:{NAME}={self.admin_key}"
            options += [f"--grpc-restricted-protocol={rule}", f"--http-restricted-api={rule}"]
        if self.connection_age_s:
            # Behind a balancer of connections a server that was added is asked only by who connects anew. A connection
            # that is that old takes no more requests, and answers those that it has.
            options += [
                f"--grpc-max-connection-age={round(self.connection_age_s * 1000)}",
                f"--grpc-max-connection-age-grace={AGE_GRACE_MS}",
            ]
        if self.certificates is None:
            return options
        options += [
            "--grpc-use-ssl=1",
            f"--grpc-server-cert={self.certificates.certificate}",
            f"--grpc-server-key={self.certificates.key}",
        ]
        if self.certificates.client_authority:
            options += ["--grpc-use-ssl-mutual=1", f"--grpc-root-cert={self.certificates.client_authority}"]
        return options

    @property
    def http_headers(self) -> Mapping[str, str]:
        """What opens the controls over HTTP."""
        return {NAME: self.admin_key}


LOCAL = Protection()  # for programs of this machine

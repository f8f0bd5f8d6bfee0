"""Where a Triton server answers in gRPC, and what proves who asks: certificates and keys, read and checked.

    --tls-ca, --tls-cert, --tls-key, --key-file, or the environment  ->  Endpoint  ->  `grpc_channel.connect`

Secrets are read from files or the environment alone: a command line is seen by everybody on the machine.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

TLS_CA, TLS_CERT, TLS_KEY = "ASTMFR_TLS_CA", "ASTMFR_TLS_CERT", "ASTMFR_TLS_KEY"
KEY_FILE, KEYS = "ASTMFR_KEY_FILE", "ASTMFR_KEYS"
INSECURE = "ASTMFR_INSECURE"  # 1: keys are sent to other hosts unencrypted, too
# Triton's name of a header: the rest of it is what `--grpc-restricted-protocol=...:<name>=<value>` gives.
KEY_HEADER = "triton-grpc-protocol-"
KEY_FORM = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*=\s*(?P<value>[!-~]+)")
LARGEST_MESSAGE = 2**31 - 1  # bytes; gRPC's own limit is 4 MiB for what is received
NO_KEYS: Mapping[str, str] = MappingProxyType({})
LARGEST_FILE = 1 << 20  # bytes; a bundle of every public authority has a quarter of that


@dataclass(frozen=True)
class Tls:
    """An encrypted connection.

    Attributes:
        authority: PEM file with the certificates of the authorities that may have signed the server's.
        certificate: PEM file with this client's own certificate, for a server that asks for one.
        key: PEM file with its private key.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """A server's gRPC endpoint, and how it is talked to.

    Attributes:
        url: `host:port`.
        tls: None for a connection that is not encrypted.
        keys: of Triton's restricted protocols, value by name; they are sent with every call.
        largest_message: bytes that one request or answer may have.
    """

    url: str
    tls: Tls | None = None
    keys: Mapping[str, str] = field(default_factory=lambda: NO_KEYS, repr=False)
    largest_message: int = LARGEST_MESSAGE

    @classmethod
    def of(cls, server: Endpoint | str) -> Endpoint:
        """An endpoint as it is, or `host:port` with the certificates and keys that the environment names.

        Raises:
            ValueError: a file of keys cannot be used, or certificates are missing; the sentence says which.
        """
        if isinstance(server, Endpoint):
            return server
        files = {name: Path(os.environ[name]) for name in (TLS_CA, TLS_CERT, TLS_KEY) if os.environ.get(name)}
        keys = {}
        if file := os.environ.get(KEY_FILE):
            keys = read_key_file(Path(file))
        keys |= read_keys(os.environ.get(KEYS, "").replace(",", "\n"), KEYS)
        return cls(server, tls=_tls(files) if files else None, keys=keys)


@dataclass(frozen=True)
class Pem:
    """The contents of a connection's files, as gRPC takes them."""

    authority: bytes
    certificate: bytes | None
    key: bytes | None


def read_pem(tls: Tls) -> Pem:
    """Read the files of an encrypted connection.

    Raises:
        ValueError: one is missing, holds something else, or may be read by everybody; the sentence says which.
    """
    authority = _read(tls.authority, "the authority's certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=authority.decode("ascii", errors="replace"))
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{tls.authority} holds no certificate; expected the authority's, in PEM.") from None
    if not context.cert_store_stats()["x509"]:
        raise ValueError(f"{tls.authority} holds no certificate; expected the authority's, in PEM.")
    if tls.certificate is None or tls.key is None:
        return Pem(authority, None, None)
    certificate = _read(tls.certificate, "this client's certificate")
    key = _read(tls.key, "this client's private key", secret=True)
    _check_pair(context, tls.certificate, tls.key, certificate=certificate)
    return Pem(authority, certificate, key)


def read_key_file(path: Path) -> dict[str, str]:
    """The keys of a file, see `read_keys`.

    Raises:
        ValueError: it cannot be read, is open to everybody, or holds something else; the sentence says which.
    """
    return read_keys(_read(path, "the keys", secret=True).decode(errors="replace"), str(path))


def read_keys(text: str, source: str) -> dict[str, str]:
    """Keys of Triton's restricted protocols: `name=value`, one a line; lines that begin with # are passed over.

    Raises:
        ValueError: a line has another form. It is not shown, as it may be a key.
    """
    keys = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        form = KEY_FORM.fullmatch(line)
        if form is None:
            raise ValueError(
                f"Line {number} of {source} is no key; expected name=value, as the server was started with."
            )
        keys[form["name"].lower()] = form["value"]
    return keys


def _tls(files: Mapping[str, Path]) -> Tls:
    certificate, key = files.get(TLS_CERT), files.get(TLS_KEY)
    if (certificate is None) != (key is None):
        given, missing = ("certificate", "--tls-key") if key is None else ("private key", "--tls-cert")
        raise ValueError(f"This client's {given} is of no use alone; give {missing} too.")
    if TLS_CA not in files:
        raise ValueError("A certificate was given and no authority to check the server's by; give --tls-ca.")
    return Tls(files[TLS_CA], certificate, key)


def _check_pair(
    context: ssl.SSLContext, certificate_path: Path, key_path: Path, *, certificate: bytes
) -> None:
    """Make sure that a private key is that of a certificate.

    Raises:
        ValueError: it is not, or one of the files holds something else.
    """

    def ask_nobody() -> str:
        raise ValueError(
            f"{key_path} is encrypted, and nobody is there to give the password; store the key without one."
        )

    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        raise ValueError(f"{certificate_path} holds no certificate; expected this client's, in PEM.")
    try:
        context.load_cert_chain(certificate_path, key_path, password=ask_nobody)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"{key_path} is not the private key of {certificate_path}; give its own."
            ) from None
        raise ValueError(
            f"{certificate_path} and {key_path} are no certificate with its private key; expected both in PEM."
        ) from None


def _read(path: Path, what: str, *, secret: bool = False) -> bytes:
    """A small file.

    Raises:
        ValueError: it cannot be read, is too large, or, if secret, may be read by everybody.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is no file; expected {what}.")
            if secret and status.st_mode & stat.S_IRWXO:
                mode = stat.S_IMODE(status.st_mode)
                raise ValueError(
                    f"{path} holds {what} and is open to everybody on this machine (mode {mode:04o}); close it with "
                    f"`chmod 600 {path}`."
                )
            content = file.read(LARGEST_FILE + 1)
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected {what}, a file.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected {what}.") from None
    if not content or len(content) > LARGEST_FILE:
        size = "is empty" if not content else f"has more than {LARGEST_FILE:,} bytes"
        raise ValueError(f"{path} {size}; expected {what}.")
    return content

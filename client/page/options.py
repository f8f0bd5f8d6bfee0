"""What the page is started with."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.core.arguments import check_category
from client.core.errors import RequestError
from client.page.access.sessions import Access
from client.page.access.tokens import Role, read_tokens

LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[^:\s]+):(?P<port>\d{1,5})")
OTHERS_MAY = 0o077


@dataclass(frozen=True)
class Feeds:
    """Where pictures come from, besides those that are dropped onto the page.

    Attributes:
        watched: folders whose new pictures are judged, by category.
        journals: of a `watch` that runs elsewhere.
    """

    watched: Sequence[tuple[str, Path]] = ()
    journals: Sequence[Path] = ()


@dataclass(frozen=True)
class Protection:
    """Who may connect, as the command line says it.

    Attributes:
        tokens: file with the viewer's and the editor's token.
        tls_cert, tls_key: PEM; the page is encrypted with them.
        insecure: listen on another address than this machine's own without tokens or TLS.
    """

    tokens: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Place:
    """Where the page listens.

    Attributes:
        host, port: the address.
        loopback: nobody but this machine reaches it.
    """

    host: str
    port: int
    loopback: bool

    @classmethod
    def of(cls, listen: str) -> Place:
        """Read `host:port`.

        Raises:
            RequestError: it is none, or the host is not known.
        """
        form = LISTEN.fullmatch(listen)
        if form is None or not 0 <= int(form["port"]) <= 65_535:
            raise RequestError(f"--listen is {listen!r}; expected host:port, 127.0.0.1:8080 say.")
        host = form["host"].strip("[]")
        try:
            (*_, address), *_ = socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            raise RequestError(f"--listen names {host!r}, which has no address; give another host.") from None
        return cls(
            host, int(form["port"]), ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        )


@dataclass(frozen=True)
class Options:
    """All of it, checked.

    Attributes:
        repository: the model repository that the server serves, for new thresholds and candidates; None where it is
            elsewhere.
        bases: the folder of images that a category was trained on, which exported marks are added to.
        keep: how many pictures stay; None keeps all.
    """

    categories: Sequence[str]
    url: str
    timeout_s: float
    data: Path
    place: Place
    feeds: Feeds
    access: Access
    tls: tuple[Path, Path] | None
    repository: Path | None
    bases: Sequence[tuple[str, Path]] = ()
    keep: int | None = None


def check_access(place: Place, protection: Protection) -> tuple[Access, tuple[Path, Path] | None]:
    """How people are told apart, and the certificate and its key.

    Raises:
        RequestError: a file cannot be used, or the network could read and change everything.
    """
    tls = _check_tls(protection)
    tokens = None if protection.tokens is None else read_tokens(protection.tokens)
    if not (place.loopback or protection.insecure):
        missing = [
            option
            for option, given in (("--tokens", tokens), ("--tls-cert and --tls-key", tls))
            if given is None
        ]
        if missing:
            raise RequestError(
                f"On {place.host} the network could look, retune and mark; give {' and '.join(missing)}, or say "
                "--insecure where something else protects the page."
            )
    everybody = Role.EDITOR if place.loopback else Role.VIEWER
    return Access(tokens, everybody, secure=tls is not None), tls


def check_categories(categories: Sequence[str]) -> list[str]:
    """The categories without repetitions.

    Raises:
        RequestError: a name that cannot be one.
    """
    return list(dict.fromkeys(check_category(category) for category in categories))


def folders_of(option: str, given: Sequence[str], categories: Sequence[str]) -> list[tuple[str, Path]]:
    """What an option says as `<category>=<folder>`, each time.

    Raises:
        RequestError: it has another form, or names a category that the page does not have.
    """
    folders = []
    for text in given:
        category, equals, folder = text.partition("=")
        if not equals or category not in categories or not folder:
            raise RequestError(
                f"{option} is {text!r}; expected <category>=<folder> with one of {', '.join(categories)}, "
                f"{categories[0]}=folder say."
            )
        folders.append((category, Path(folder)))
    return folders


def _check_tls(protection: Protection) -> tuple[Path, Path] | None:
    certificate, key = protection.tls_cert, protection.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise RequestError("A certificate goes with its key; give both --tls-cert and --tls-key.")
    try:
        if key.stat().st_mode & OTHERS_MAY:
            raise RequestError(
                f"The private key {key} may be read by other users; let its owner alone: chmod 600 {key}."
            )
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError:
        raise RequestError(
            f"{certificate} and {key} are no certificate with its private key; expected both in PEM form, the key "
            "without a password."
        ) from None
    except OSError as error:
        missing = certificate if not os.access(certificate, os.R_OK) else key
        raise RequestError(
            f"{missing} cannot be read ({error.strerror or error}); give a PEM file."
        ) from None
    return certificate, key

"""Options of every command that connects to a server: certificates and keys, as another spelling of the environment.

A command that takes `--url` is decorated with `endpoint_options`. What is given is in the environment while the command
runs, where `grpc_endpoint.Endpoint.of` reads it: so it holds for each connection that the command makes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from model_repository.grpc_endpoint import KEY_FILE, KEYS, TLS_CA, TLS_CERT, TLS_KEY

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path()  # `Endpoint.of` says what is wrong with it


def endpoint_options(command: Command) -> Command:
    """Add --tls-ca, --tls-cert, --tls-key and --key-file to a command, which gets no arguments of them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _option(name: str, variable: str, text: str) -> Callable[[Command], Command]:
    def keep(context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.with_resource(_set(variable, value))

    return click.option(
        name,
        type=FILE,
        metavar="FILE",
        expose_value=False,
        callback=keep,
        envvar=variable,
        show_envvar=True,
        help=text,
    )


@contextmanager
def _set(variable: str, value: str) -> Iterator[None]:
    """A variable of the environment, for the length of a `with` block."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


OPTIONS = (
    _option("--tls-ca", TLS_CA, "Encrypt, and trust servers that these authorities signed; PEM."),
    _option("--tls-cert", TLS_CERT, "This client's certificate, where the server asks for one; PEM."),
    _option("--tls-key", TLS_KEY, "Its private key; PEM, readable by its owner alone."),
    _option(
        "--key-file",
        KEY_FILE,
        f"Keys of Triton's restricted protocols, name=value a line; {KEYS} takes them too.",
    ),
)

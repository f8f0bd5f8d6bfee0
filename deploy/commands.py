"""Serve until somebody stops it, or for as long as a command runs."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import click

from deploy.errors import CommandError
from deploy.processes import ending_with_parent
from deploy.server import TritonServer
from deploy.supervision.supervisor import Supervisor

COMMAND_STOP_TIMEOUT_S = 10
say = functools.partial(click.echo, err=True)  # stdout is the command's


def serve_until_stopped(starting: AbstractContextManager[Supervisor]) -> None:
    """Start a server, show its models, and keep it serving until Ctrl-C or SIGTERM."""
    interrupt_on_signals()
    say("Starting tritonserver ...")
    with starting as supervisor:
        try:
            _show(supervisor.server)
            if supervisor.health_url:
                say(f"Whether all of it serves: {supervisor.health_url}.")
            say("Ctrl-C stops it.")
            threading.Event().wait()
        except KeyboardInterrupt:
            say("Stopping tritonserver ...")
    say(f"tritonserver has stopped (exit code {supervisor.server.exit_code}).")


def run_beside(starting: AbstractContextManager[TritonServer], command: Sequence[str]) -> int:
    """Run a command while a server runs.

    Its environment holds the server's addresses: ASTMFR_URL (gRPC), ASTMFR_HTTP_URL and ASTMFR_METRICS_URL.

    Returns:
        The command's exit code; 128 + n when signal n ended it.

    Raises:
        CommandError: there is no such command.
        ServerError: the server could not be started.
    """
    if shutil.which(command[0]) is None:
        raise CommandError(f"command {command[0]} is not found on PATH; check its name.")
    interrupt_on_signals()
    say("Starting tritonserver ...")
    with starting as server:
        _show(server)
        addresses = {
            "ASTMFR_URL": server.grpc_url,
            "ASTMFR_HTTP_URL": server.http_url,
            "ASTMFR_METRICS_URL": server.metrics_url,
        }
        exit_code = _run(command, addresses)
        if server.exit_code is not None:
            say(f"tritonserver ended by itself with exit code {server.exit_code}; see {server.log}.")
    say(f"tritonserver has stopped (exit code {server.exit_code}).")
    return exit_code


def interrupt_on_signals() -> None:
    """Let SIGTERM stop us as Ctrl-C does, and Ctrl-C also where a shell started us in the background."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@contextmanager
def _interrupts_deferred() -> Iterator[list[int]]:
    """Only note signals that come meanwhile: a command that is just being started could not be stopped by them."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _show(server: TritonServer) -> None:
    """One line a model, then the addresses."""
    models = server.models()
    width = max(len(model.name) for model in models)
    for model in models:
        versions = ",".join(map(str, model.versions))
        load = "" if model.load_s is None else f"loaded in {model.load_s:.1f} s"
        say(f"  {model.name:{width}}  version {versions:5}  {model.state}  {load}")
    say(
        f"tritonserver ({server.origin}, process {server.pid}) was ready after {server.ready_s:.1f} s: "
        f"gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}; log {server.log}."
    )


def _run(command: Sequence[str], addresses: dict[str, str]) -> int:
    process = None
    try:
        with _interrupts_deferred() as received:
            process = subprocess.Popen(ending_with_parent(command), env=os.environ | addresses)
        if received:
            raise KeyboardInterrupt
        exit_code = process.wait()
    except KeyboardInterrupt:
        if process is None:
            raise
        process.terminate()
        exit_code = _wait_or_kill(process)
    return exit_code if exit_code >= 0 else 128 - exit_code


def _wait_or_kill(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(COMMAND_STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        return process.wait()

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy import commands
from deploy import server as server_module
from deploy.__main__ import main
from deploy.installation import Installation
from deploy.supervision.shared_memory import sweep
from tests.deploy.conftest import add_model, comes_true, processes_of, shared_memory_of

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def deploy(command: str, repository: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command line as a shell starts it: a process group of its own, which is what Ctrl-C reaches."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "deploy",
            command,
            "--repository",
            repository,
            "--log",
            repository / "log",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def server_pid(serving: subprocess.Popen[str]) -> int:
    """Process id of the server, once it is ready."""
    assert serving.stderr is not None
    for line in serving.stderr:
        if ready := re.search(r"process (\d+)\) was ready", line):
            return int(ready[1])
    raise AssertionError("the server was never ready")


def test_help_shows_defaults_and_units() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200).output
    for expected in (
        "[default: 8001; 0<=x<=65535]",
        "Seconds in which",
        "[default: 120.0]",
        "logs/tritonserver.log",
    ):
        assert expected in text


def test_an_unknown_command_is_told_before_a_server_starts(repository: Path) -> None:
    result = CliRunner().invoke(main, ["run", "--repository", str(repository), "--", "no-such-command"])
    assert result.exit_code == 1
    assert "command no-such-command is not found on PATH" in result.output


def test_run_without_a_command_is_refused(repository: Path) -> None:
    result = CliRunner().invoke(main, ["run", "--repository", str(repository)])
    assert result.exit_code == 2
    assert "Missing argument 'COMMAND...'" in result.output


def test_a_fresh_clone_is_not_served(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--repository", str(tmp_path)])
    assert result.exit_code == 1
    assert "make export CATEGORY=" in result.output


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (".", "log . is no file; give one with --log."),
        ("/dev/full", "log /dev/full is no file; give one with --log."),
        ("file/log", "log file/log cannot be written (File exists); make room, or give another with --log."),
        ("/proc/none/log", "log /proc/none/log cannot be written (No such file or directory); make room"),
    ],
)
def test_a_log_that_cannot_be_written_is_told(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(server_module, "find_installation", lambda _: Installation(("true",), {}, "a test's"))
    result = CliRunner().invoke(main, ["run", "--repository", str(repository), "--log", log, "--", "true"])
    assert result.exit_code == 1
    assert f"Error: {sentence}" in result.output


@pytest.mark.parametrize("log", [".", "/dev/full"])
def test_serve_tells_of_a_log_that_is_no_file(repository: Path, log: str) -> None:
    add_model(repository, "pill")
    result = CliRunner().invoke(main, ["serve", "--repository", str(repository), "--log", log])
    assert result.exit_code == 1
    assert f"Error: log {log} is no file; give one with --log." in result.output
    assert not Path("/dev/full.events.jsonl").exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-5", "0"])
def test_a_time_is_a_number_of_seconds(repository: Path, seconds: str) -> None:
    arguments = ["run", "--repository", str(repository), "--timeout-s", seconds, "--", "true"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Invalid value for '--timeout-s'" in result.output


@pytest.mark.triton
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_cleanly(repository: Path, stop: signal.Signals) -> None:
    with deploy("serve", repository, *FREE_PORTS) as serving:
        server = server_pid(serving)
        os.killpg(serving.pid, stop)
        _, said = serving.communicate()
    assert serving.returncode == 0
    assert said.splitlines()[-2:] == ["Stopping tritonserver ...", "tritonserver has stopped (exit code 0)."]
    assert comes_true(lambda: not processes_of(server))


@pytest.mark.triton
def test_a_second_ctrl_c_kills_the_server(tmp_path: Path, repository: Path) -> None:
    # The model holds up the server, which would end by itself in the end, with exit code 1.
    model, finishing = repository / "identity" / "1" / "model.py", tmp_path / "finishing"
    wait = f"open({str(finishing)!r}, 'w').close(); time.sleep(600)"
    model.write_text(f"{model.read_text()}\n    def finalize(self):\n        {wait}\n")
    with deploy("serve", repository, *FREE_PORTS) as serving:
        server = server_pid(serving)
        os.killpg(serving.pid, signal.SIGINT)
        assert comes_true(finishing.exists, within_s=60)
        os.killpg(serving.pid, signal.SIGINT)
        _, said = serving.communicate()
    assert "tritonserver has stopped (exit code -9)." in said
    assert comes_true(lambda: not processes_of(server))


@pytest.mark.triton
def test_the_server_ends_when_serve_is_killed_outright(repository: Path) -> None:
    with deploy("serve", repository, *FREE_PORTS) as serving:
        server = server_pid(serving)
        serving.kill()
    assert comes_true(lambda: not processes_of(server), within_s=10)
    left = shared_memory_of(repository / "log")
    assert sum(region.stat().st_size for region in left) == 0
    sweep()  # as the next start does
    assert shared_memory_of(repository / "log") == []


@pytest.mark.triton
def test_run_gives_the_command_a_server_and_ends_with_its_exit_code(repository: Path) -> None:
    script = 'echo "$ASTMFR_URL $ASTMFR_HTTP_URL $ASTMFR_METRICS_URL"; exit 7'
    with deploy("run", repository, "--", "sh", "-c", script) as running:
        printed, said = running.communicate()
    assert running.returncode == 7
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+ http://127\.0\.0\.1:\d+ http://127\.0\.0\.1:\d+/metrics\n", printed
    )
    assert re.search(r"^  identity  version 1 +READY +loaded in \d+\.\d s$", said, re.MULTILINE)
    assert "tritonserver has stopped (exit code 0)." in said


@pytest.mark.triton
def test_sigterm_ends_run_with_its_command(repository: Path) -> None:
    with deploy("run", repository, "--", "sh", "-c", "echo started; exec sleep 60") as running:
        server = server_pid(running)
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        running.terminate()
        _, said = running.communicate(timeout=10)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert comes_true(lambda: not processes_of(server))
    assert comes_true(lambda: not processes_of(running.pid))


def test_a_signal_that_comes_while_the_command_is_being_started_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = subprocess.Popen

    def interrupted_start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*args, **options)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    commands.interrupt_on_signals()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", interrupted_start)
            assert commands._run(["sleep", "60"], {}) == 128 + signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

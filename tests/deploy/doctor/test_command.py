"""The whole command on this machine: what it says holds when a server is started."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deploy.__main__ import main
from deploy.doctor.check import Verdict
from deploy.doctor.examination import Plan, examine
from deploy.ports import Ports
from tests.deploy.doctor.conftest import FREE_PORTS, checks_of, doctor, nobody
from tests.products import ROOT

HAS_MOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not HAS_MOUNTS, reason="only root may mount")
HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "export", "train")
IN_ORDER = [
    "repository", "tritonserver", "Python library", "glibc", "shared libraries", "Python packages", "backends", "GPU",
    "driver", "TensorRT", "container engine", "CPU flags", "CPU cores", "/dev/shm", "disk", "log", "clock", "HTTP port",
    "gRPC port", "metrics port",
]  # fmt: skip


@pytest.mark.triton
def test_this_machine_can_serve(published: Path, tmp_path: Path) -> None:
    answer = doctor("--repository", published, "--log", tmp_path / "log", *FREE_PORTS, "--json")
    checks = checks_of(answer)
    assert list(checks) == IN_ORDER
    assert answer.returncode == 0
    assert checks["repository"]["found"] == f"{published} publishes pill"
    assert checks["tritonserver"]["found"] == "embedded in .triton/"
    assert re.fullmatch(r"libpython3\.\d+\.so\.1\.0 is there", checks["Python library"]["found"])
    assert "numpy 1." in checks["Python packages"]["found"]
    assert checks["backends"]["found"] == "python"
    assert not (tmp_path / "log").exists()


@pytest.mark.triton
@needs_mounts
@pytest.mark.parametrize(("mebibytes", "verdict"), [(9, "warning"), (7, "missing")])
def test_what_it_says_of_shared_memory_is_what_the_server_does(
    published: Path, tmp_path: Path, mebibytes: int, verdict: str
) -> None:
    small = f"mount -t tmpfs -o size={mebibytes}m none /dev/shm"
    log = tmp_path / "log"
    answer = doctor("--repository", published, "--log", log, *FREE_PORTS, "--json", prelude=small)
    check = checks_of(answer)["/dev/shm"]
    assert check["verdict"] == verdict
    assert check["found"].startswith(f"{mebibytes} MiB free; the server starts with 8 MiB (2 processes)")
    serve = [
        sys.executable,
        "-m",
        "deploy",
        "run",
        "--repository",
        published,
        "--log",
        log,
        *FREE_PORTS,
        "true",
    ]
    started = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{small} && exec "$@"', "sh", *serve],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (started.returncode == 0) is (verdict != "missing"), started.stderr
    assert ("--shm-size" in started.stderr) is (verdict == "missing")


@needs_mounts
def test_a_full_disk_and_a_read_only_one_cannot_take_the_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    full = f"mount -t tmpfs -o size=64k none {logs}; head -c 65536 /dev/zero > {logs}/filler"
    answer = doctor("--log", logs / "log", "--triton-env", tmp_path, "--json", prelude=full)
    assert checks_of(answer)["log"] == {
        "name": "log",
        "found": f"the disk of {logs / 'log'} is full",
        "verdict": "missing",
        "remedy": "Make room, or give another with --log.",
        "needed_for": "",
    }
    read_only = f"mount -t tmpfs -o ro none {logs}"
    answer = doctor("--log", logs / "new" / "log", "--triton-env", tmp_path, "--json", prelude=read_only)
    assert checks_of(answer)["log"]["found"] == f"{logs} cannot be written by this user"


@needs_mounts
def test_little_room_beside_the_repository_is_a_warning(published: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    prelude = f"mount -t tmpfs -o size=16m none {mounted} && cp -r {published}/. {mounted}"
    answer = doctor("--repository", mounted, "--triton-env", tmp_path, "--json", prelude=prelude)
    check = checks_of(answer)["disk"]
    assert check["verdict"] == "warning"
    assert re.match(rf"1[56] MiB free where {mounted} lies", check["found"])


def test_the_table_fits_80_columns_and_says_what_is_missing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        elsewhere = ("--repository", tmp_path / "none", "--triton-env", tmp_path / "no_env")
        answer = doctor(*elsewhere, *FREE_PORTS, "--http-port", str(port))
    assert answer.returncode == 1
    assert max(map(len, answer.stdout.splitlines())) <= 80
    text = " ".join(answer.stdout.split())
    assert re.search(
        rf"HTTP port missing port {port} of 127\.0\.0\.1 is in use by '.*' \(process \d+\) Stop it", text
    )
    assert "Without a network:" in text
    assert text.endswith("Serving is not possible here; missing: repository, tritonserver, HTTP port.")


def test_without_a_server_every_check_is_there_and_says_so(tmp_path: Path) -> None:
    checks = checks_of(doctor("--triton-env", tmp_path / "no_env", *FREE_PORTS, "--json"))
    assert list(checks) == IN_ORDER
    for name in ("Python library", "shared libraries", "Python packages", "backends"):
        assert checks[name]["found"] == "not known: there is no tritonserver that could be asked"
        assert checks[name]["verdict"] == "warning"


def test_a_full_disk_below_the_answer_is_one_sentence() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "deploy", "doctor", "--triton-env", "none"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert answer.returncode == 1
    assert answer.stderr == "Error: standard output cannot be written (No space left on device).\n"


def test_it_loads_neither_torch_nor_onnx() -> None:
    script = (
        "import sys\nfrom deploy.__main__ import main\n"
        "try:\n    main(['doctor', '--json'])\n"
        f"except SystemExit:\n    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.stderr == "[]\n"


def test_options_have_the_defaults_of_serve() -> None:
    def defaults(command: str) -> dict[str, object]:
        return {
            option.opts[0]: option.default
            for option in main.commands[command].params
            if isinstance(option, click.Option)
        }

    serve, asked = defaults("serve"), defaults("doctor")
    del asked["--json"]
    assert asked == {option: serve[option] for option in asked}


def test_make_doctor_installs_nothing(tmp_path: Path) -> None:
    make = subprocess.run(
        ["make", "--no-print-directory", "doctor", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert make.returncode == 2
    assert f"there is no {tmp_path / 'venv'} here, which every command needs; run make setup" in make.stderr
    assert not list(tmp_path.iterdir())


def test_what_nobody_may_enter_is_told_without_a_traceback(open_folder: Path) -> None:
    plan = Plan(
        repository=open_folder / "models",
        host="127.0.0.1",
        ports=Ports(),
        log=open_folder / "log",
        triton_env=open_folder / "env",
    )
    open_folder.chmod(0)
    with nobody():
        checks = {check.name: check for check in examine(plan)}
    assert list(checks) == IN_ORDER
    assert checks["tritonserver"].found == f"{plan.triton_env} cannot be looked into (Permission denied)"
    assert {name for name, check in checks.items() if check.verdict is Verdict.MISSING} == {
        "repository", "tritonserver", "log"
    }  # fmt: skip

"""One function decides how a server is started: `command` prints what `serve` starts, whatever the options."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy import server_command as command_module
from deploy import server_options as options_module
from deploy.__main__ import main
from deploy.errors import InstallationError, ServerError
from deploy.installation import Installation, find_installation
from deploy.model_control import ModelControl
from deploy.ports import Ports, claim_ports
from deploy.protection.protection import Protection
from deploy.server import TritonServer
from deploy.server_versions import CLIENT_SHM, HTTP_INPUT, Switches
from model_repository.triton_release import EMBEDDED_VERSION, TRITON_RELEASE
from tests.deploy.conftest import comes_true

CATEGORY = """
name: "{name}"
platform: "ensemble"
max_batch_size: 32
ensemble_scheduling {{
  step {{
    model_name: "identity"
  }}
}}
"""
PUBLIC_KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def published(repository: Path) -> Path:
    """A repository with a category, as far as its configurations tell."""
    for name in ("pill", "pill_encoded"):
        (repository / name).mkdir()
        (repository / name / "config.pbtxt").write_text(CATEGORY.format(name=name))
    return repository


def ask(*options: object) -> Result:
    return CliRunner().invoke(main, ["command", *map(str, options)], catch_exceptions=False)


def asked(*options: object) -> dict[str, object]:
    done = ask(*options, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def test_what_is_printed_is_what_serve_starts(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        TritonServer, "_start", lambda self, command, environment: started.append((command, environment))
    )
    server = TritonServer(
        Installation(("tritonserver",), {}, "", Switches.of_version(TRITON_RELEASE)),
        published,
        ["identity", "pill", "pill_encoded"],
        log=tmp_path / "log",
        host="127.0.0.1",
        ports=Ports(http=8000, grpc=8001, metrics=8002),
        threads=2,
        timeout_s=120,
        protection=Protection(client_shm=True),
    )
    told = asked("--repository", published, "--threads", 2, "--client-shm")
    own, general = server._regions.prefix, "astmfr_"
    arguments = [argument.replace(own, general) for argument in started[0][0]]
    assert told["arguments"] == arguments
    assert told["variables"] == {name: value.replace(own, general) for name, value in started[0][1].items()}
    assert told["key_variable"] is None


def test_the_shell_lines_start_it_with_the_key_of_its_file(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "it's the admin.key"
    key.write_text(f"# ours\nastmfr-admin={PUBLIC_KEY}\n")
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"; env | grep ASTMFR_TURNS\n")
    program.chmod(0o755)
    options = ("--repository", published, "--mounted-at", "/models", "--host", "0.0.0.0", "--insecure")
    printed = ask(*options, "--key-file", key).stdout
    assert PUBLIC_KEY not in printed
    done = subprocess.run(
        ["sh", "-c", printed],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    rule = f"model-repository,statistics,trace,logging,shared-memory:astmfr-admin={PUBLIC_KEY}"
    assert {f"--grpc-restricted-protocol={rule}", f"--http-restricted-api={rule}"} < set(said)
    assert {"--model-repository=/models", "--rate-limit=execution_count", "--load-model=pill"} < set(said)
    assert "ASTMFR_TURNS=/dev/shm/astmfr_turns" in said


def test_without_a_key_what_is_closed_opens_to_nobody(published: Path, tmp_path: Path) -> None:
    """As with `serve`: a key that is another one each time."""
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    printed = ask("--repository", published, "--host", "0.0.0.0", "--insecure").stdout
    said = [
        subprocess.run(
            ["sh", "-c", printed],
            env={"PATH": f"{tmp_path}:/bin:/usr/bin", **stated},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for stated in ({}, {}, {"ASTMFR_ADMIN_KEY": PUBLIC_KEY})
    ]
    keys = [
        re.findall(r"^--http-restricted-api=.*astmfr-admin=([0-9a-f]*)$", each, re.MULTILINE) for each in said
    ]
    assert [len(key[0]) for key in keys] == [48, 48, 32]
    assert keys[0] != keys[1]
    assert keys[2] == [PUBLIC_KEY]


def test_an_empty_key_file_starts_nothing(published: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    options = ("--repository", published, "--key-file", tmp_path / "key")
    done = subprocess.run(
        ["sh", "-c", ask(*options).stdout],
        env={"PATH": "/bin:/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "ASTMFR_ADMIN_KEY: holds no admin key" in done.stderr


def test_keys_and_certificates_need_not_be_here(published: Path) -> None:
    told = asked(
        *("--repository", published, "--host", "0.0.0.0", "--key-file", "/run/secrets/admin.key"),
        *("--tls-cert", "/tls/tls.crt", "--tls-key", "/tls/tls.key", "--tls-client-ca", "/tls/ca.crt"),
    )
    assert told["key_variable"] == "ASTMFR_ADMIN_KEY"
    arguments = told["arguments"]
    assert isinstance(arguments, list)
    assert "--grpc-server-key=/tls/tls.key" in arguments
    assert "--grpc-root-cert=/tls/ca.crt" in arguments
    assert "--http-address=127.0.0.1" in arguments
    assert any(argument.endswith("astmfr-admin=$(ASTMFR_ADMIN_KEY)") for argument in arguments)


def test_a_shard_is_told_its_categories_and_the_age_of_connections(published: Path) -> None:
    arguments = asked("--repository", published, "--category", "pill", "--connection-age-s", 300)["arguments"]
    assert isinstance(arguments, list)
    assert "--grpc-max-connection-age=300000" in arguments
    assert [name for name in arguments if name.startswith("--load-model")] == [
        "--load-model=identity",
        "--load-model=pill",
        "--load-model=pill_encoded",
    ]
    done = ask("--repository", published, "--category", "nut")
    assert done.exit_code == 1
    assert "nut" in done.stderr


def test_another_machines_cores_and_gpus_decide(published: Path) -> None:
    config = published / "identity" / "config.pbtxt"
    config.write_text(
        config.read_text()
        + 'parameters {\n  key: "cuda_pool_bytes"\n  value {\n    string_value: "99000000"\n  }\n}\n'
    )
    arguments = asked("--repository", published, "--cores", 64, "--gpus", 2)["arguments"]
    assert isinstance(arguments, list)
    assert "--backend-config=onnxruntime,intra_op_thread_count=64" in arguments
    assert "--cuda-memory-pool-byte-size=1:99000000" in arguments


@pytest.mark.parametrize("version", [EMBEDDED_VERSION, "2.51.0", "24.10", "25.09", "2.61"])
def test_an_older_server_is_given_no_newer_option(published: Path, version: str) -> None:
    arguments = asked("--repository", published, "--version", version)["arguments"]
    assert not any(str(argument).startswith((CLIENT_SHM, HTTP_INPUT)) for argument in list(arguments))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("version", "newer"),
    [("26.11", {CLIENT_SHM, HTTP_INPUT}), ("2.75.0", {CLIENT_SHM, HTTP_INPUT}), ("26.03", {HTTP_INPUT})],
)
def test_a_newer_server_is_told_what_2_51_does_unasked(version: str, newer: set[str]) -> None:
    options = Switches.of_version(version).options(client_shm=False)
    assert {option.partition("=")[0] for option in options} == newer
    assert f"{HTTP_INPUT}=1664000000" in options  # 200 megapixels of 8 bytes, and 64 MB
    assert (f"{CLIENT_SHM}=false" in options) == (CLIENT_SHM in newer)


@pytest.mark.parametrize("version", ["26.13", "26", "2.50", "24.09", "latest", "", "26.11-py3"])
def test_what_is_no_version_is_refused(published: Path, version: str) -> None:
    done = ask("--repository", published, "--version", version)
    assert done.exit_code == 1
    assert f"'{version}' is no version of tritonserver that this project knows" in done.stderr
    assert done.stdout == ""


def test_a_program_says_itself_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tritonserver"
    program.write_text(
        f"#!/bin/sh\necho '  {CLIENT_SHM} <boolean>'\necho '  --http-port <integer>'\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_installation(tmp_path).switches == Switches(frozenset({CLIENT_SHM}))


def test_a_wrong_size_of_pictures_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTMFR_MAX_MEGAPIXELS", "many")
    with pytest.raises(InstallationError, match=r"ASTMFR_MAX_MEGAPIXELS is 'many'; expected a number"):
        Switches.of_version(TRITON_RELEASE).options(client_shm=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--http-port", "8001"], "ports 8001, 8001 and 8002; each needs one of its own"),
        (["--host", "0.0.0.0"], "--insecure"),
        (["--mounted-at", "/my models"], "has a space in it"),
        (["--tls-cert", "a.pem"], "give both --tls-cert and --tls-key"),
        (["--repository", "/nowhere"], "model repository /nowhere does not exist"),
    ],
)
def test_what_could_not_be_started_is_refused(published: Path, options: list[str], words: str) -> None:
    done = ask("--repository", published, *options)
    assert done.exit_code == 1
    assert words in done.stderr


def test_every_option_is_one_that_the_embedded_server_has(published: Path) -> None:
    """What its own `--help` lists; the two newer ones aside."""
    installation = find_installation(Path(".triton"))
    said = subprocess.run(
        [installation.command[0], "--help"],
        env=installation.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    known = set(re.findall(r"^\s*(--[\w-]+)", said.stdout + said.stderr, re.MULTILINE))
    told = asked(
        *("--repository", published, "--host", "0.0.0.0", "--key-file", "k", "--gpus", 1),
        *("--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a", "--version", EMBEDDED_VERSION),
        *("--trace", "http://localhost:4318"),
    )
    arguments = told["arguments"]
    assert isinstance(arguments, list)
    assert {argument.partition("=")[0] for argument in arguments[1:]} <= known


def test_only_one_place_puts_the_command_together() -> None:
    sources = [path for path in Path("deploy").rglob("*.py") if "command_options(" in path.read_text()]
    assert sorted(path.name for path in sources) == ["server_command.py", "server_options.py"]
    assert command_module.command_options is options_module.command_options


@pytest.mark.triton
def test_the_real_server_answers_when_a_shell_runs_the_lines(repository: Path, tmp_path: Path) -> None:
    """As a container without the supervisor would; the embedded server in place of NVIDIA's."""
    installation = find_installation(Path(".triton"))
    program = tmp_path / "tritonserver"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(installation.command)} "$@"\n')
    program.chmod(0o755)
    ports = claim_ports("127.0.0.1", Ports())
    printed = ask(
        *("--repository", repository, "--version", EMBEDDED_VERSION, "--http-port", ports.http),
        *("--grpc-port", ports.grpc, "--metrics-port", ports.metrics),
    ).stdout
    environment = installation.environment | {"PATH": f"{tmp_path}:{installation.environment['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["sh", "-c", printed], env=environment, stdout=log, stderr=log)
    try:
        control = ModelControl(f"http://127.0.0.1:{ports.http}")
        assert comes_true(lambda: server.poll() is not None or ready(control), within_s=60)
        assert control.ready() == {"identity"}
    finally:
        server.terminate()
        assert server.wait(60) == 0, (tmp_path / "log").read_text()[-500:]


def ready(control: ModelControl) -> bool:
    try:
        return bool(control.ready())
    except ServerError:
        return False

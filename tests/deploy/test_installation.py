from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deploy import installation
from deploy.errors import InstallationError
from deploy.installation import find_installation, missing_libraries, prepare

TRITON_ENV = Path(".triton")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment_of(folder: Path, version: str) -> Path:
    """An environment whose Python answers the probe with a version, beside a pytriton without stubs for it."""
    packages = folder / "packages"
    answer = json.dumps({"version": version, "library_dirs": [], "packages": str(packages)})
    executable(folder / "bin" / "python", f"#!/bin/sh\necho '{answer}'\n")
    executable(packages / "pytriton" / "tritonserver" / "bin" / "tritonserver", "")
    for supported in ("3.8", "3.10"):
        (packages / "pytriton" / "tritonserver" / "python_backend_stubs" / supported).mkdir(parents=True)
    return folder


def test_a_tritonserver_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = executable(tmp_path / "tritonserver", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    installation_on_path = find_installation(tmp_path / "no_triton_env")
    assert installation_on_path.command == (str(binary),)


def test_without_any_server_the_error_says_make_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        InstallationError, match=r"no tritonserver on PATH and no embedded one in .*`make setup`"
    ):
        find_installation(tmp_path / ".triton")


def test_an_environment_without_a_python_is_made_anew(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"bin/python does not run .* `rm -r .*; make setup`"):
        prepare(tmp_path)


def test_an_unsupported_python_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InstallationError, match=r"has Python 3\.14, but the server supports 3\.8, 3\.10 only"
    ):
        prepare(environment_of(tmp_path, "3.14"))


@pytest.mark.triton
def test_a_missing_libpython_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Python 3.8 without a shared library, which systems of today do not bring either.
    real = installation._probe(TRITON_ENV.absolute())
    bare = installation._Python("3.8", [], real.packages)
    monkeypatch.setattr(installation, "_probe", lambda _: bare)
    message = r"needs libpython3\.8\.so\.1\.0, which .*; install the Debian or Ubuntu package libpython3\.8 "
    with pytest.raises(InstallationError, match=message):
        prepare(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.triton
def test_an_environment_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = installation._probe(TRITON_ENV.absolute())
    monkeypatch.setattr(installation, "_probe", lambda _: real)
    (tmp_path / "server").touch()  # where a folder has to be made
    with pytest.raises(
        InstallationError, match=r"cannot be made ready \(.+\); make room and let this user write"
    ):
        prepare(tmp_path)


@pytest.mark.triton
def test_prepared_once_it_is_left_alone() -> None:
    prepare(TRITON_ENV)
    links = [
        *TRITON_ENV.glob("server/backends/python/*"),
        TRITON_ENV / "lib/libb64.so.0d",
        TRITON_ENV / "bin/perf-analyzer",
    ]
    assert {"triton_python_backend_stub", "libtriton_python.so", "triton_python_backend_utils.py"} <= {
        link.name for link in links
    }
    before = [link.lstat().st_ino for link in links]
    prepare(TRITON_ENV)
    assert [link.lstat().st_ino for link in links] == before
    assert all(link.exists() for link in links)


@pytest.mark.triton
def test_a_damaged_link_is_mended() -> None:
    prepare(TRITON_ENV)
    link = TRITON_ENV / "lib" / "libb64.so.0d"
    right = link.readlink()
    link.unlink()
    link.symlink_to("nowhere")
    prepare(TRITON_ENV)
    assert link.readlink() == right


@pytest.mark.triton
def test_the_stub_finds_its_libraries() -> None:
    stub = TRITON_ENV / "server" / "backends" / "python" / "triton_python_backend_stub"
    assert missing_libraries(stub, prepare(TRITON_ENV).environment) == []


@pytest.mark.triton
def test_perf_analyzer_runs_from_anywhere(tmp_path: Path) -> None:
    prepare(TRITON_ENV)
    linked = tmp_path / "perf-analyzer"
    linked.symlink_to((TRITON_ENV / "bin" / "perf-analyzer").absolute())
    answer = subprocess.run([linked, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Perf Analyzer Version 2.51" in answer.stdout + answer.stderr

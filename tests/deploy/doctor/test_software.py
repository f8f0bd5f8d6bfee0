"""The server's software, each fault through its cause."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import installation
from deploy.doctor.check import Verdict
from deploy.doctor.glibc import check_glibc, judge_glibc, needed_glibc, server_files
from deploy.doctor.needs import Needs
from deploy.doctor.packages import PIN, REQUIREMENTS, check_packages, judge_packages
from deploy.doctor.software import (
    Server,
    check_backends,
    check_libraries,
    check_python_library,
    check_server,
    find_server,
)
from deploy.errors import InstallationError
from deploy.installation import Installation
from tests.deploy.doctor.conftest import program

TRITON_ENV = Path(".triton")
PYTHON = "/env/bin/python3"
AS_INSTALLED = dict(PIN.findall(REQUIREMENTS.read_text())) | {"numpy": "1.26.4"}


@pytest.fixture(scope="module")
def server() -> Server:
    return find_server(TRITON_ENV)


def toy_server(folder: Path, *, embedded: bool = False) -> Server:
    """A server of two backends, whose programs are scripts."""
    for name in ("python", "onnxruntime"):
        (folder / "backends" / name).mkdir(parents=True)
    binary = program(folder / "bin", "tritonserver", "true")
    found = Installation((str(binary),), {"PATH": str(folder / "bin")}, str(binary))
    return Server(found, embedded, folder / "backends", folder / "backends" / "python" / "stub")


def test_nvidias_server_is_taken_with_the_backends_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_server(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = find_server(tmp_path / "no_env")
    assert not found.embedded
    assert found.backends == tmp_path / "backends"
    assert check_server(found).found == str(tmp_path / "bin" / "tritonserver")


def test_an_environment_without_a_python_keeps_its_remedy_whole(tmp_path: Path) -> None:
    with pytest.raises(InstallationError) as error:
        find_server(tmp_path)
    check = check_server(error.value)
    assert check.verdict is Verdict.MISSING
    assert check.found.startswith(f"{tmp_path / 'bin' / 'python'} does not run (")
    assert check.remedy.startswith(
        f"Make it anew with `rm -r {tmp_path}; make setup`. Without a network: `pip download"
    )


@pytest.mark.triton
def test_a_stub_without_its_libpython_is_missing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Python 3.8 without a shared library, which systems of today do not bring either.
    real = installation._probe(TRITON_ENV.absolute())
    bare = installation._Python("3.8", [], real.packages)
    monkeypatch.setattr(installation, "_probe", lambda _: bare)
    with pytest.raises(InstallationError) as error:
        find_server(tmp_path)
    check = check_python_library(error.value)
    assert check.verdict is Verdict.MISSING
    assert "needs libpython3.8.so.1.0" in check.found
    assert check.remedy == "Install the Debian or Ubuntu package libpython3.8 that brings it."
    assert check_server(error.value).found == "not known: its Python library is missing, see there"


@pytest.mark.triton
def test_another_servers_stub_without_its_libpython_is_missing(server: Server) -> None:
    stub = server.binary.parents[1] / "python_backend_stubs" / "3.8" / "triton_python_backend_stub"
    check = check_python_library(replace(server, stub=stub))
    assert check.verdict is Verdict.MISSING
    assert check.remedy == "Install the Debian or Ubuntu package libpython3.8 that brings it."


@pytest.mark.triton
def test_a_server_away_from_its_libraries_lacks_them(server: Server, tmp_path: Path) -> None:
    assert check_libraries(server).verdict is Verdict.OK
    moved = tmp_path / "tritonserver"
    shutil.copy(server.binary, moved)
    elsewhere = replace(server, installation=replace(server.installation, command=(str(moved),)))
    check = check_libraries(elsewhere)
    assert check.verdict is Verdict.MISSING
    assert re.search(r"libtritonserver-\w+\.so.* not found", check.found)


@pytest.mark.triton
@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf to compare with")
def test_the_needed_glibc_is_what_readelf_reads(server: Server) -> None:
    files = list(server_files(server))
    assert {path.name.partition("-")[0] for path in files} >= {
        "tritonserver", "triton_python_backend_stub", "libtriton_python.so", "libtritonserver"
    }  # fmt: skip
    named = []
    for path in files:
        listing = subprocess.run(
            ["readelf", "--version-info", path], capture_output=True, text=True, check=True
        ).stdout
        named += re.findall(r"Name: GLIBC_(\d+)\.(\d+)(?!\.)", listing)
    assert needed_glibc(files) == max((int(major), int(minor)) for major, minor in named)
    assert check_glibc(server).verdict is Verdict.OK


def test_an_older_glibc_is_missing(tmp_path: Path) -> None:
    newer = tmp_path / "server"
    newer.write_bytes(b"\0GLIBC_2.9\0\0GLIBC_2.38\0")
    (tmp_path / "empty").touch()
    needed = needed_glibc([newer, tmp_path / "empty", tmp_path / "none"])
    assert needed == (2, 38)
    check = judge_glibc("2.36", needed)
    assert check.verdict is Verdict.MISSING
    assert check.found == "2.36; the server needs 2.38 or later"
    assert judge_glibc("2.38", needed).verdict is Verdict.OK
    assert judge_glibc("2.100", needed).verdict is Verdict.OK
    assert judge_glibc("2.36", None).found.startswith("not known: 2.36")


def test_before_there_is_a_server_glibc_is_compared_with_its_wheel() -> None:
    assert "the server needs 2.35 or later" in check_glibc(InstallationError("none")).found


@pytest.mark.triton
def test_the_wheel_needs_the_glibc_that_is_said(server: Server) -> None:
    tags = next(server.binary.parents[3].glob("nvidia_pytriton-*.dist-info/WHEEL")).read_text()
    assert "manylinux_2_35_x86_64" in tags


def test_a_published_backend_that_the_server_lacks_is_missing(tmp_path: Path) -> None:
    toy = toy_server(tmp_path)
    assert check_backends(toy, Needs(frozenset({"python", "onnxruntime"}))).found == "onnxruntime, python"
    check = check_backends(toy, Needs(frozenset({"python", "tensorrt"})))
    assert check.verdict is Verdict.MISSING
    assert check.found == "onnxruntime, python; what is published also needs tensorrt"
    shutil.rmtree(toy.backends)
    assert check_backends(toy, Needs()).found == f"not known: there is no folder {toy.backends}"


@pytest.mark.triton
def test_the_packages_of_the_embedded_server_are_right(server: Server) -> None:
    assert check_packages(server, Needs()).verdict is Verdict.OK


@pytest.mark.parametrize("python", ["", "echo 'no Python' >&2; exit 3"])
def test_a_python_that_is_not_there_or_fails(tmp_path: Path, python: str) -> None:
    toy = toy_server(tmp_path)
    if python:
        program(tmp_path / "bin", "python3", python)
        with pytest.raises(OSError, match="python3: no Python"):
            check_packages(toy, Needs())
    else:
        assert check_packages(toy, Needs()).found == "no python3 on the server's PATH"


@pytest.mark.parametrize(
    ("change", "verdict", "found"),
    [
        ({}, Verdict.OK, "numpy 1.26.4, pillow 13"),
        (
            {"numpy": "2.1.0"},
            Verdict.MISSING,
            "numpy 2.1.0, with which this server answers tensors of 0 bytes",
        ),
        ({"pillow": None}, Verdict.MISSING, "no pillow"),
        ({"onnxruntime": None, "tifffile": None}, Verdict.MISSING, "no tifffile and no onnxruntime"),
        ({"onnxruntime": "1.20.0"}, Verdict.WARNING, "onnxruntime 1.20.0 (tried with "),
    ],
)
def test_versions_of_the_embedded_servers_packages(
    change: dict[str, str | None], verdict: Verdict, found: str
) -> None:
    versions = {name: version for name, version in (AS_INSTALLED | change).items() if version}
    check = judge_packages(versions, Needs(), python=PYTHON, embedded=True)
    assert check.verdict is verdict
    assert check.found.startswith(found)
    assert bool(check.remedy) is (verdict is not Verdict.OK)


def test_nvidias_server_needs_no_onnxruntime_in_python_unless_a_model_asks() -> None:
    versions = {"numpy": "2.1.0", "pillow": "13.0.0", "tifffile": "2026.3.3"}
    assert judge_packages(versions, Needs(), python=PYTHON, embedded=False).verdict is Verdict.OK
    check = judge_packages(versions, Needs(onnx_in_python=True), python=PYTHON, embedded=False)
    assert check.found == "no onnxruntime"
    assert check.remedy.startswith(f"Run `{PYTHON} -m pip install onnxruntime` in the server's image")


def test_categories_that_are_aligned_need_opencv() -> None:
    versions = {"numpy": "1.26.4", "pillow": "13.0.0", "tifffile": "2026.3.3"}
    check = judge_packages(versions, Needs(opencv=True), python=PYTHON, embedded=False)
    assert "no opencv-python-headless" in check.found
    assert judge_packages(versions, Needs(), python=PYTHON, embedded=False).verdict is Verdict.OK

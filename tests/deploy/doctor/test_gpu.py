"""What a GPU needs, told by programs that stand for NVIDIA's and Docker's: no machine of ours has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.doctor import gpu, programs
from deploy.doctor.check import Verdict
from deploy.doctor.gpu import (
    Gpus,
    check_container_engine,
    check_driver,
    check_gpu,
    check_tensorrt,
    find_gpus,
    judge_driver,
    library_version,
)
from deploy.doctor.needs import Needs
from deploy.errors import InstallationError
from tests.deploy.doctor.conftest import program

ON_GPU = Needs(frozenset({"python", "tensorrt"}), gpu=True)
NO_SERVER = InstallationError("none")
NO_DRIVER = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on PATH, on a host that is no container."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "CONTAINER_MARKS", ())
    return folder


def test_gpus_are_listed_as_nvidia_smi_lists_them(path: Path) -> None:
    program(
        path, "nvidia-smi", "echo 'NVIDIA L4, 580.95.05, 23034 MiB'; echo 'NVIDIA T4, 580.95.05, 15360 MiB'"
    )
    gpus = find_gpus()
    assert (gpus.driver, gpus.fault) == ("580.95.05", "")
    assert check_gpu(gpus, ON_GPU).found == "NVIDIA L4, 23034 MiB; NVIDIA T4, 15360 MiB"
    assert check_gpu(gpus, ON_GPU).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (NO_DRIVER, "could not communicate with the NVIDIA driver"),
        ("echo 'No devices were found'", "nvidia-smi says No devices were found"),
        ("exec /bin/sleep 5", "nvidia-smi did not answer within 0.2 s"),
    ],
)
def test_why_nvidia_smi_does_not_answer_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, script: str, fault: str
) -> None:
    monkeypatch.setattr(programs, "PROGRAM_TIMEOUT_S", 0.2)
    program(path, "nvidia-smi", script)
    check = check_gpu(find_gpus(), ON_GPU)
    assert check.verdict is Verdict.MISSING
    assert fault in check.found
    assert check_gpu(find_gpus(), Needs()).verdict is Verdict.OK


def test_without_nvidia_smi_the_kernel_says_which_driver_it_has(path: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    assert find_gpus(version).driver == "570.133.20"
    assert find_gpus(tmp_path / "none").driver == ""


def test_no_gpu_is_a_fault_only_where_one_is_needed(path: Path) -> None:
    on_cpu, needed = check_gpu(Gpus(), Needs()), check_gpu(Gpus(), ON_GPU)
    assert (on_cpu.verdict, on_cpu.needed_for) == (Verdict.OK, "platforms tensorrt, and onnxruntime on a GPU")
    assert (needed.verdict, needed.found) == (Verdict.MISSING, "none, and what is published runs on one")
    assert check_driver(Gpus(), Needs(), NO_SERVER).verdict is Verdict.OK
    assert check_driver(Gpus(), ON_GPU, NO_SERVER).verdict is Verdict.MISSING


@pytest.mark.parametrize(("visible", "verdict"), [("", "missing"), ("-1", "missing"), ("0", "ok")])
def test_hidden_gpus_are_none(monkeypatch: pytest.MonkeyPatch, visible: str, verdict: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert check_gpu(Gpus(["L4"], "580.1"), ON_GPU).verdict == verdict
    assert check_gpu(Gpus(["L4"], "580.1"), Needs()).verdict is Verdict.OK


def test_a_driver_that_does_not_say_its_cuda_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver_cuda", lambda: None)
    assert check_driver(Gpus(["L4"], "570.1"), ON_GPU, NO_SERVER).found.startswith("not known: driver 570.1")


@pytest.mark.parametrize(
    ("cuda", "wanted", "needed", "verdict"),
    [
        ((12, 4), "13.0.96", True, Verdict.MISSING),
        ((12, 4), "13.0.96", False, Verdict.WARNING),
        ((12, 4), "12.9.79", True, Verdict.OK),
        ((13, 0), "12.9.79", True, Verdict.OK),
        ((12, 4), "", True, Verdict.OK),
    ],
)
def test_a_driver_takes_its_own_cuda_and_those_before(
    cuda: tuple[int, int], wanted: str, needed: bool, verdict: Verdict
) -> None:
    check = judge_driver("550.54", cuda, wanted, gpu_is_needed=needed)
    assert check.verdict is verdict
    assert ("Install a driver for CUDA 13" in check.remedy) is (verdict is not Verdict.OK)


def test_a_library_is_found_as_the_loader_finds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = path / "libnvinfer.so.10.13.3"
    real.touch()
    link = path / "libnvinfer.so.10"
    link.symlink_to(real)
    listing = (
        f"echo '\tlibnvinfer.so.10 (libc6,x86-64) => {link}'; echo '\tlibnvinfer_plugin.so.10 (libc6) => /x'"
    )
    monkeypatch.setattr(gpu, "LDCONFIG", (str(program(path, "ldconfig", listing)),))
    assert library_version("libnvinfer.so") == "10.13.3"
    assert check_tensorrt(ON_GPU).verdict is Verdict.OK


def test_the_loader_of_this_machine_knows_its_c_library() -> None:
    assert library_version("libc.so") == "6"
    assert library_version("libnosuch.so") == ""


def test_tensorrt_is_missing_only_where_engines_are_published(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LDCONFIG", ())
    assert check_tensorrt(Needs()).found == "none"
    assert check_tensorrt(Needs()).verdict is Verdict.OK
    assert check_tensorrt(ON_GPU).verdict is Verdict.MISSING


@pytest.mark.parametrize(
    ("name", "script", "found"),
    [
        ("docker", "echo 28.2.2", "docker 28.2.2"),
        ("podman", "echo 5.4.0", "podman 5.4.0"),
        (
            "docker",
            "echo 'permission denied while trying to connect' >&2; exit 1",
            "docker: permission denied",
        ),
        ("other", "true", "neither docker nor podman is on PATH"),
    ],
)
def test_a_container_engine_is_needed_for_what_the_embedded_server_lacks(
    path: Path, name: str, script: str, found: str
) -> None:
    program(path, name, script)
    works = found.startswith(f"{name} ")
    assert check_container_engine(Needs(), NO_SERVER).verdict is Verdict.OK
    check = check_container_engine(Needs(frozenset({"onnxruntime"})), NO_SERVER)
    assert check.found.startswith(found)
    assert check.verdict is (Verdict.OK if works else Verdict.MISSING)


def test_an_engine_without_nvidias_toolkit_gives_no_gpu(path: Path) -> None:
    program(path, "docker", "echo 28.2.2")
    check = check_container_engine(ON_GPU, NO_SERVER)
    assert (check.verdict, check.found) == (Verdict.WARNING, "docker 28.2.2, and no nvidia-ctk on PATH")
    program(path, "nvidia-ctk", "true")
    assert check_container_engine(ON_GPU, NO_SERVER).verdict is Verdict.OK


def test_inside_a_container_none_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "CONTAINER_MARKS", (tmp_path,))
    assert check_container_engine(ON_GPU, NO_SERVER).found == "this is a container"

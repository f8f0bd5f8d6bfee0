"""Processor, ports, shared memory and disks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.doctor import processor, system
from deploy.doctor.check import Verdict
from deploy.doctor.needs import Needs
from deploy.doctor.processor import check_cores, check_flags, core_quota
from deploy.doctor.system import check_log, check_ports, check_shared_memory, free_bytes
from deploy.ports import Ports
from tests.deploy.doctor.conftest import nobody


def test_ports_are_free() -> None:
    checks = check_ports("127.0.0.1", Ports())
    assert [check.name for check in checks] == ["HTTP port", "gRPC port", "metrics port"]
    assert {check.verdict for check in checks} == {Verdict.OK}


def test_a_busy_port_is_missing_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        http, grpc, metrics = check_ports("127.0.0.1", Ports(grpc=port))
    assert (http.verdict, grpc.verdict, metrics.verdict) == (Verdict.OK, Verdict.MISSING, Verdict.OK)
    assert f"(process {os.getpid()})" in grpc.found
    assert grpc.remedy == "Stop it or give another port with --grpc-port."


def test_two_services_on_one_port_are_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    *_, both = check_ports("127.0.0.1", Ports(http=port, grpc=port))
    assert (both.verdict, both.found) == (Verdict.MISSING, f"port {port} is given to two services")


def test_a_host_without_an_address_is_missing() -> None:
    (check,) = check_ports("no.such.host.invalid", Ports())
    assert (check.name, check.verdict) == ("host", Verdict.MISSING)
    assert check.remedy == "Give another --host."


@pytest.mark.parametrize(
    ("processes", "verdict"), [(0, Verdict.OK), (2, Verdict.OK), (3, Verdict.WARNING), (5, Verdict.MISSING)]
)
def test_shared_memory_is_compared_with_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(system, "free_bytes", lambda _: 16 << 20)
    check = check_shared_memory(Needs(python_instances=processes), tmp_path)
    assert check.verdict is verdict
    assert ("--shm-size" in check.remedy) is (verdict is not Verdict.OK)


def test_shared_memory_that_is_not_there_or_not_for_this_user(open_folder: Path) -> None:
    assert check_shared_memory(Needs(), open_folder / "none").found == "there is none"
    open_folder.chmod(0o555)
    with nobody():
        check = check_shared_memory(Needs(), open_folder)
    assert check.found == "this user cannot write there"
    assert (check.verdict, check.remedy[:10]) == (Verdict.MISSING, "Mount it w")


def test_a_file_system_without_a_limit_is_not_full(tmp_path: Path) -> None:
    assert free_bytes(Path("/proc")) == float("inf")
    assert 0 < free_bytes(tmp_path) < float("inf")


def test_a_log_that_can_be_written_is_not_written(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log"
    check = check_log(log)
    assert check.found.startswith(f"{log} can be written")
    assert not log.parent.exists()


def test_a_log_in_a_read_only_folder_is_missing(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with nobody():
        check = check_log(open_folder / "logs" / "log")
    assert (check.verdict, check.found) == (Verdict.MISSING, f"{open_folder} cannot be written by this user")
    open_folder.chmod(0)
    with nobody():
        check = check_log(open_folder / "logs" / "log")
    assert (check.verdict, check.found) == (
        Verdict.MISSING,
        f"{open_folder / 'logs' / 'log'} cannot be reached by this user",
    )


@pytest.mark.parametrize(
    ("log", "found"), [("folder", "is no file"), ("file/log", "a file, is where the folder of")]
)
def test_a_log_that_is_no_file(tmp_path: Path, log: str, found: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    check = check_log(tmp_path / log)
    assert check.verdict is Verdict.MISSING
    assert found in check.found


@pytest.mark.parametrize(
    ("flags", "verdict", "found"),
    [
        ("sse4_2 avx2", Verdict.OK, "Core: AVX2, no VNNI: int8 will not pay"),
        ("avx2 avx512f avx512_vnni", Verdict.OK, "Core: AVX-512, VNNI"),
        ("sse4_2 avx", Verdict.WARNING, "Core: no AVX2"),
        ("sse4_2 hypervisor", Verdict.WARNING, "Core: no AVX2"),
    ],
)
def test_a_processor_is_judged_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, verdict: Verdict, found: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Core\nflags\t\t: {flags}\n")
    check = check_flags(cpuinfo)
    assert check.verdict is verdict
    assert check.found.startswith(found)
    assert ("virtual machine" in check.remedy) is ("hypervisor" in flags)


def test_another_processor_and_one_that_lists_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.touch()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert check_flags(cpuinfo).found == f"not known: {cpuinfo} lists no flags"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert check_flags(cpuinfo).found.startswith("aarch64, which")


def test_a_container_with_less_time_than_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "usable_cores", lambda: 4)
    assert check_cores(tmp_path).verdict is Verdict.OK
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    check = check_cores(tmp_path)
    assert check.verdict is Verdict.WARNING
    assert check.found.endswith("but for the time of 1.5 alone")
    assert check.remedy.startswith("Serve with --threads 1,")


def test_quotas_of_both_versions_of_control_groups(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert core_quota(tmp_path) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert core_quota(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert core_quota(tmp_path) is None

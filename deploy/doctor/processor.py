"""The processor: what it can compute with, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from deploy.doctor.check import Check, not_known, warning
from deploy.server_options import usable_cores

CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")


def check_flags(cpuinfo: Path = CPUINFO) -> Check:
    """Whether the processor has the instructions that make the networks fast.

    ONNX Runtime and the server run without them too: with Nehalem's and with a bare `kvm64`'s.
    """
    name = "CPU flags"
    machine = platform.machine()
    if machine != "x86_64":
        return Check(name, f"{machine}, which this project has not been run on")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    listed = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    if listed is None:
        return not_known(name, f"{cpuinfo} lists no flags")
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = set(listed[1].split())
    vector = next((label for flag, label in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    found = f"{model[1].strip() if model else 'x86-64'}: {vector or 'no AVX2'}"
    found += ", VNNI" if flags & {"avx512_vnni", "avx_vnni"} else ", no VNNI: int8 will not pay"
    if vector:
        return Check(name, found)
    virtual = "hypervisor" in flags
    return warning(
        name,
        found,
        "Give the virtual machine its host's CPU type; until then every image takes longer."
        if virtual
        else "Serve on a CPU of 2014 or later; on this one every image takes longer.",
    )


def check_cores(cgroup: Path = CGROUP) -> Check:
    """How many cores the server may use, and whether a container gives it less time than those have."""
    name = "CPU cores"
    usable, present = usable_cores(), os.cpu_count()
    quota = core_quota(cgroup)
    found = f"{usable} of {present} may be used"
    if quota is None or quota >= usable:
        return Check(name, found)
    return warning(
        name,
        f"{found}, but for the time of {quota:g} alone",
        f"Serve with --threads {max(1, int(quota))}, or give the container more CPU time.",
    )


def core_quota(cgroup: Path) -> float | None:
    """Cores whose time a container may use; None where nothing limits it."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        paths = [cgroup / file for file in files]
        if all(path.is_file() for path in paths):
            quota, period = " ".join(path.read_text(encoding="utf-8") for path in paths).split()[:2]
            return None if quota in ("max", "-1") else int(quota) / int(period)
    return None

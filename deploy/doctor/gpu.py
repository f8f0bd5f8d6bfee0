"""What a GPU platform needs: GPU, driver, container engine and TensorRT. On a CPU none of it is a fault."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.doctor.check import Check, missing, not_known, warning
from deploy.doctor.needs import Needs
from deploy.doctor.programs import program_says
from deploy.doctor.software import Server
from deploy.errors import InstallationError
from deploy.server_options import count_gpus

DRIVER = Path("/proc/driver/nvidia/version")
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
LDCONFIG = ("/sbin/ldconfig", "/usr/sbin/ldconfig")
GPU_PLATFORMS = "platforms tensorrt, and onnxruntime on a GPU"


@dataclass(frozen=True)
class Gpus:
    """NVIDIA's GPUs.

    Attributes:
        names: One a GPU.
        driver: Its version; empty where none was found.
        fault: Why nvidia-smi does not say more.
    """

    names: Sequence[str] = ()
    driver: str = ""
    fault: str = ""


def find_gpus(driver_file: Path = DRIVER) -> Gpus:
    """The GPUs as nvidia-smi lists them; without it, as many as /dev shows, and the driver as the kernel says."""
    if smi := shutil.which("nvidia-smi"):
        try:
            listing = program_says(
                smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
            )
        except OSError as error:
            return Gpus(["NVIDIA GPU"] * count_gpus(), fault=str(error))
        rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines() if line]
        if not all(len(row) == 3 for row in rows):
            return Gpus(["NVIDIA GPU"] * count_gpus(), fault=f"nvidia-smi says {listing.splitlines()[0]}")
        return Gpus([f"{model}, {memory}" for model, _, memory in rows], rows[0][1] if rows else "")
    version = re.search(r"Module.*?\s(\d+\.[\d.]+)", _text(driver_file))
    return Gpus(["NVIDIA GPU"] * count_gpus(), version[1] if version else "")


def check_gpu(gpus: Gpus, needs: Needs) -> Check:
    """Whether there is a GPU, where a published model is to run on one."""
    name = "GPU"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    if needs.gpu and hidden:
        remedy = "Unset CUDA_VISIBLE_DEVICES, or let it name a GPU."
        return missing(name, "CUDA_VISIBLE_DEVICES hides every GPU", remedy, needed_for=GPU_PLATFORMS)
    if gpus.names and not gpus.fault:
        return Check(name, "; ".join(gpus.names), needed_for=GPU_PLATFORMS)
    found = "none"
    if gpus.fault:
        found = f"{len(gpus.names) or 'none'} in /dev; {gpus.fault}"
    if not needs.gpu:
        return Check(name, found, needed_for=GPU_PLATFORMS)
    remedy = (
        "Install NVIDIA's driver again and restart; in a container give it --gpus all."
        if gpus.fault
        else "Give the container --gpus all, or publish again with --platform python into a new --repository."
    )
    return missing(name, f"{found}, and what is published runs on one", remedy, needed_for=GPU_PLATFORMS)


def check_driver(gpus: Gpus, needs: Needs, server: Server | InstallationError) -> Check:
    """Whether the driver takes the CUDA that NVIDIA's server, and its TensorRT, come with."""
    name = "driver"
    if not gpus.driver:
        if not needs.gpu:
            return Check(name, "none", needed_for=GPU_PLATFORMS)
        remedy = "Install NVIDIA's driver and restart; a container takes that of its host."
        return missing(name, "none, and what is published runs on a GPU", remedy, needed_for=GPU_PLATFORMS)
    cuda = driver_cuda()
    if cuda is None:
        found = f"driver {gpus.driver} is here, but its libcuda.so.1 cannot be loaded to say for which CUDA"
        return not_known(name, found, "Install the driver's libraries too.", needed_for=GPU_PLATFORMS)
    wanted = library_version("libcudart.so") if isinstance(server, Server) and not server.embedded else ""
    return judge_driver(gpus.driver, cuda, wanted, gpu_is_needed=needs.gpu)


def judge_driver(driver: str, cuda: tuple[int, int], wanted: str, *, gpu_is_needed: bool) -> Check:
    """A driver takes every CUDA of its own major version and of those before."""
    name = "driver"
    found = f"{driver}, for CUDA {cuda[0]}.{cuda[1]}"
    if not wanted or cuda[0] >= int(wanted.partition(".")[0]):
        return Check(name, found, needed_for=GPU_PLATFORMS)
    say = missing if gpu_is_needed else warning
    remedy = f"Install a driver for CUDA {wanted.partition('.')[0]}, or take an older image of the server."
    return say(name, f"{found}; the server has CUDA {wanted}", remedy, needed_for=GPU_PLATFORMS)


def check_container_engine(needs: Needs, server: Server | InstallationError) -> Check:
    """Whether NVIDIA's Triton container can be started here, where what is published needs it."""
    name, needed_for = "container engine", "platforms onnxruntime and tensorrt"
    if any(mark.exists() for mark in CONTAINER_MARKS):
        return Check(name, "this is a container", needed_for=needed_for)
    there = isinstance(server, Server) and not server.embedded
    needed = bool(needs.beyond_python) and not there
    engine = next((path for path in map(shutil.which, ("docker", "podman")) if path), None)
    if engine is None:
        found, remedy = "neither docker nor podman is on PATH", "Install Docker Engine, or Podman."
    else:
        program = Path(engine).name
        field = "{{.Server.Version}}" if program == "docker" else "{{.Client.Version}}"
        try:
            version = program_says(engine, "version", "--format", field)
        except OSError as error:
            found = str(error)
            remedy = f"Start it with `systemctl start {program}`, and let this user ask it."
        else:
            return _with_toolkit(f"{program} {version}", needs, needed_for)
    if not needed:
        return Check(name, found, needed_for=needed_for)
    return missing(name, f"{found}; what is published needs it", remedy, needed_for=needed_for)


def check_tensorrt(needs: Needs) -> Check:
    """Which TensorRT is installed; an engine runs only on the one that built it."""
    name, needed_for = "TensorRT", "platform tensorrt"
    version = library_version("libnvinfer.so")
    if version:
        return Check(name, f"{version}; it runs engines that it has built", needed_for=needed_for)
    if "tensorrt" not in needs.backends:
        return Check(name, "none", needed_for=needed_for)
    found, remedy = "none, and engines are published", "Serve in NVIDIA's Triton container, which brings it."
    return missing(name, found, remedy, needed_for=needed_for)


def driver_cuda() -> tuple[int, int] | None:
    """The CUDA that the driver is for, as its library says; None where it cannot be loaded."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def library_version(name: str) -> str:
    """Version of the newest library of this name that the loader knows, from its file's name; empty where none is."""
    ldconfig = next((path for path in LDCONFIG if Path(path).exists()), None)
    listing = program_says(ldconfig, "-p") if ldconfig else ""
    paths = re.findall(rf"^\s*{re.escape(name)}\.\d+ .*=> (.+)$", listing, re.MULTILINE)
    versions = [Path(path).resolve().name.partition(f"{name}.")[2] for path in paths]
    return max(versions, key=lambda version: [int(part) for part in re.findall(r"\d+", version)], default="")


def _with_toolkit(engine: str, needs: Needs, needed_for: str) -> Check:
    name = "container engine"
    if needs.gpu and shutil.which("nvidia-ctk") is None:
        remedy = "Install NVIDIA's container toolkit, without which no container sees the GPU."
        return warning(name, f"{engine}, and no nvidia-ctk on PATH", remedy, needed_for=needed_for)
    return Check(name, engine, needed_for=needed_for)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

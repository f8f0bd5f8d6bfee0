"""Find a tritonserver: NVIDIA's on PATH, else the embedded one, made ready to run.

The embedded server comes from pytriton, which carries the server and one Python stub for each Python version.
Links in `<triton_env>/` put it together. Nothing is copied, and links that are right already stay.

    server/backends/python/   the Python backend, with the stub of the environment's own Python
    lib/                      the two shared libraries that perf_analyzer wants under their plain names
    bin/perf-analyzer         perf_analyzer, started with those libraries
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import InstallationError
from deploy.server_versions import Switches

PROBE = """
import json, sys, sysconfig
print(json.dumps({
    "version": sysconfig.get_python_version(),
    "library_dirs": [sysconfig.get_config_var("LIBDIR") or "", sys.base_prefix + "/lib"],
    "packages": sysconfig.get_path("platlib"),
}))
"""

PERF_ANALYZER = """\
#!/bin/sh
# Written by `python -m deploy prepare`: perf_analyzer with the shared libraries that it needs.
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/perf_analyzer" "$@"
"""


@dataclass(frozen=True)
class Installation:
    """A tritonserver that can be started: its command, the environment it needs, and its newer options."""

    command: tuple[str, ...]
    environment: dict[str, str]
    origin: str  # for people: where it comes from
    switches: Switches = field(default_factory=Switches)  # the embedded one has none


@dataclass(frozen=True)
class _Python:
    version: str  # "3.11"
    library_dirs: list[str]
    packages: Path

    @property
    def library(self) -> str:
        return f"libpython{self.version}.so.1.0"


def find_installation(triton_env: Path) -> Installation:
    """The tritonserver on PATH, else the embedded one of `triton_env`, prepared.

    Raises:
        InstallationError: there is neither, or the embedded one cannot run here.
    """
    if on_path := shutil.which("tritonserver"):
        switches = Switches.of_program(on_path, os.environ)
        return Installation((on_path,), dict(os.environ), on_path, switches)
    return prepare(triton_env)


def prepare(triton_env: Path) -> Installation:
    """Make the embedded server and its perf_analyzer ready to run; once they are, this takes 0.1 s.

    Raises:
        InstallationError: the environment is missing, incomplete or cannot be written, or a shared library is missing.
    """
    triton_env = triton_env.absolute()
    python = _probe(triton_env)
    environment = _environment(triton_env, python)
    try:
        binary = _link_server(triton_env, python, environment)
        _link_perf_analyzer(triton_env, python)
    except OSError as error:
        raise InstallationError(
            f"{triton_env} cannot be made ready ({error.strerror or error}); make room and let this user write there, "
            f"or {_anew(triton_env)}"
        ) from None
    backends = f"--backend-directory={triton_env / 'server' / 'backends'}"
    return Installation((str(binary), backends), environment, f"embedded in {triton_env.name}/")


def missing_libraries(binary: Path, environment: dict[str, str]) -> list[str]:
    """Shared libraries of a binary that the loader does not find in this environment, as `ldd` lists them."""
    # The loader lists what it would load and ends before the program starts.
    listing = subprocess.run(
        [binary],
        env=environment | {"LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return re.findall(r"^\s*(\S+) => not found", listing.stdout, re.MULTILINE)


def _probe(triton_env: Path) -> _Python:
    python = triton_env / "bin" / "python"
    if not triton_env.is_dir():
        raise InstallationError(
            f"there is no tritonserver on PATH and no embedded one in {triton_env}; run `make setup`."
        )
    try:
        answer = subprocess.run(
            [python, "-I", "-c", PROBE],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallationError(f"{python} does not run ({error}); {_anew(triton_env)}") from None
    try:
        python_info = json.loads(answer)
        return _Python(python_info["version"], python_info["library_dirs"], Path(python_info["packages"]))
    except (ValueError, KeyError, TypeError):
        raise InstallationError(
            f"{python} is no Python that this project knows; {_anew(triton_env)}"
        ) from None


def _environment(triton_env: Path, python: _Python) -> dict[str, str]:
    """The server's environment; its stub needs libpython, and takes packages from the first Python on PATH."""
    environment = dict(os.environ)
    environment["PATH"] = _prepended(str(triton_env / "bin"), environment.get("PATH"))
    library_dir = next((path for path in python.library_dirs if (Path(path) / python.library).exists()), None)
    if library_dir:
        environment["LD_LIBRARY_PATH"] = _prepended(library_dir, environment.get("LD_LIBRARY_PATH"))
    return environment


def _link_server(triton_env: Path, python: _Python, environment: dict[str, str]) -> Path:
    """Put the Python backend together and give back the server's binary."""
    source = python.packages / "pytriton" / "tritonserver"
    stubs = source / "python_backend_stubs"
    binary = source / "bin" / "tritonserver"
    if not binary.exists():
        raise InstallationError(f"{triton_env} holds no pytriton with a tritonserver; {_anew(triton_env)}")
    stub = stubs / python.version / "triton_python_backend_stub"
    if not stub.exists():
        versions = sorted(
            (path.name for path in stubs.iterdir()), key=lambda name: int(name.partition(".")[2])
        )
        raise InstallationError(
            f"{triton_env} has Python {python.version}, but the server supports {', '.join(versions)} only; "
            f"{_anew(triton_env)}"
        )
    if missing := missing_libraries(stub, environment):
        remedy = (
            f"install the Debian or Ubuntu package libpython{python.version} that brings it"
            if python.library in missing
            else "install the packages that bring them"
        )
        raise InstallationError(
            f"the server's Python {python.version} stub needs {', '.join(missing)}, "
            f"which neither the system nor the Python of {triton_env} has; {remedy}."
        )
    backend = triton_env / "server" / "backends" / "python"
    for target in (*(source / "backends" / "python").glob("*triton_python*.*"), stub):
        _link(backend / target.name, target)
    return binary


def _link_perf_analyzer(triton_env: Path, python: _Python) -> None:
    binary = triton_env / "bin" / "perf_analyzer"
    libraries = {
        "libb64.so.0d": next((python.packages / "nvidia_pytriton.libs").glob("libb64-*.so.0d"), None),
        "libcudart.so.12": python.packages / "nvidia" / "cuda_runtime" / "lib" / "libcudart.so.12",
    }
    for name, target in libraries.items():
        if target is None or not target.exists() or not binary.exists():
            raise InstallationError(
                f"{triton_env} holds no perf_analyzer with its {name}; {_anew(triton_env)}"
            )
        _link(triton_env / "lib" / name, target)
    launcher = triton_env / "bin" / "perf-analyzer"
    if not launcher.exists() or launcher.read_text(encoding="utf-8") != PERF_ANALYZER:
        staged = _beside(launcher)
        staged.write_text(PERF_ANALYZER, encoding="utf-8")
        staged.chmod(0o755)
        staged.replace(launcher)


def _link(link: Path, target: Path) -> None:
    """A relative link, replaced by one rename; one that is right already stays."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and str(link.readlink()) == relative:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(link)
    staged.symlink_to(relative)
    staged.replace(link)


def _beside(path: Path) -> Path:
    """A temporary name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _prepended(folder: str, path: str | None) -> str:
    return f"{folder}{os.pathsep}{path}" if path else folder


def _anew(triton_env: Path) -> str:
    return f"make it anew with `rm -r {triton_env}; make setup`."

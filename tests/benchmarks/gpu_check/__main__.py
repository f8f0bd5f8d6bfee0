"""What a GPU gives, on a bare machine with PyTorch for CUDA, in eight minutes: `make gpu-check`.

Every part runs by itself within its own time. Nothing is installed: wheels in build/gpu-check/wheels are unpacked
(`python -m tests.benchmarks.gpu_check.luggage` fetches them where there is a network). Results are written after each
part, as JSON and as docs/measurements/gpu-<card>.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu_check.luggage import SERVER, WHEELS
from tests.benchmarks.gpu_check.page import file_name, page_of
from tests.benchmarks.gpu_check.parts import PARTS, run_part

LIMIT_S = 480.0
LEAST_S = 5.0  # less is not worth starting a part
NEEDED = ("torch", "timm", "torchvision", "safetensors", "numpy", "click", "rich", "psutil", "PIL", "scipy", "sklearn",
          "matplotlib", "jinja2", "tensorboard", "pydantic", "tritonclient", "google.protobuf", "grpc", "onnxruntime",
          "pytest")  # fmt: skip

# Packages that are called otherwise than their wheels.
IMPORTED_AS = {
    "absl_py": "absl",
    "grpcio": "grpc",
    "markdown_it_py": "markdown_it",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "python_dateutil": "dateutil",
    "python_rapidjson": "rapidjson",
    "scikit_learn": "sklearn",
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """What is measured, where, and where it goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a try in tiny sizes")
    parser.add_argument(
        "--seconds", type=float, default=LIMIT_S, help="for all of it  (default: %(default)g)"
    )
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these")
    parser.add_argument("--in-use", action="store_true", help="measure although somebody else uses the GPU")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/gpu-check"), help="takes JSON, logs and runs"
    )
    parser.add_argument(
        "--page", type=Path, help="default: docs/measurements/gpu-<card>.md, on a CPU in --folder"
    )
    return parser.parse_args(argv)


def unpack_wheels(folder: Path) -> None:
    """Unpack what travelled, so that this Python and the parts find it; a package that is here stays the machine's."""
    target = folder / "packages"
    for wheel in sorted(WHEELS.glob("*.whl")):
        package = wheel.name.partition("-")[0].lower()
        if not is_here(IMPORTED_AS.get(package, package)):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
    if target.is_dir():
        sys.path.append(str(target))
        paths = [os.environ.get("PYTHONPATH", ""), str(target.absolute())]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def missing_packages() -> list[str]:
    """Packages that parts need and this Python lacks."""
    return [name for name in NEEDED if not is_here(name)]


def is_here(package: str) -> bool:
    """Whether this Python can import it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of google.protobuf, where google is missing too
        return False


def write(parts: dict[str, Any], asked: argparse.Namespace, started: time.struct_time) -> Path:
    """The results so far as JSON and as a page; the page's path."""
    date = time.strftime("%Y-%m-%d", started)
    text = json.dumps({"date": date, "device": asked.device, "parts": parts}, indent=2) + "\n"
    (asked.folder / "gpu-check.json").write_text(text, encoding="utf-8")
    card = parts.get("machine", {}).get("card", "unknown")
    folder = asked.folder if asked.device == "cpu" else Path("docs/measurements")
    path: Path = asked.page or folder / file_name(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        page_of(parts, date=date, device=asked.device, tiny=asked.device == "cpu"), encoding="utf-8"
    )
    return path


def refusal(machine: dict[str, Any], *, in_use: bool) -> str | None:
    """Why nothing else is measured."""
    if machine.get("unusable"):
        return str(machine["fault"])
    return None if in_use else machine.get("in_use")


def main(argv: list[str] | None = None) -> int:
    """Run the parts; 2 where the GPU cannot be used, else 0, whatever falls short."""
    asked = parse_arguments(argv)
    began, started = time.monotonic(), time.localtime()
    asked.folder.mkdir(parents=True, exist_ok=True)
    unpack_wheels(asked.folder)
    if missing := missing_packages():
        print(
            f"Missing here: {', '.join(missing)}. Parts that need them say so; fetch wheels with `python -m "
            f"tests.benchmarks.gpu_check.luggage` where there is a network, and bring {WHEELS} and {SERVER}.",
            file=sys.stderr,
        )
    parts: dict[str, Any] = {}
    page = None
    for part in PARTS:
        if asked.parts and part.name not in (*asked.parts, "machine"):
            continue
        left_s = asked.seconds - (time.monotonic() - began)
        if left_s < LEAST_S:
            parts[part.name] = {"fault": f"not run: the {asked.seconds:.0f} s were over"}
        else:
            folder, tiny = asked.folder, asked.device == "cpu"
            parts[part.name] = run_part(part, device=asked.device, tiny=tiny, folder=folder, seconds=left_s)
        print(
            f"{part.name}: {parts[part.name].get('fault', 'done')} ({parts[part.name].get('seconds', 0)} s)",
            flush=True,
        )
        if part.name == "machine" and (fault := refusal(parts["machine"], in_use=asked.in_use)):
            print(f"Error: {fault}", file=sys.stderr)
            return 2
        page = write(parts, asked, started)
    if page is not None:
        print(f"\n{page.read_text(encoding='utf-8')}\n{page}, {asked.folder / 'gpu-check.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

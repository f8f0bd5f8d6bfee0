"""The Python packages that the models import in the server."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from deploy.doctor.check import Check, missing, warning
from deploy.doctor.needs import Needs
from deploy.doctor.programs import program_says
from deploy.doctor.software import Server

REQUIREMENTS = Path(__file__).parents[1] / "step-requirements.txt"
PIN = re.compile(r"^([\w-]+)(?:\[[^\]]*\])?==([\w.]+)", re.MULTILINE)
OFFLINE = "without a network from wheels that `pip download` has fetched elsewhere (`--no-index --find-links wheels`)."
PACKAGES = """
import json
from importlib.metadata import distributions
print(json.dumps({(each.metadata["Name"] or "").lower(): each.version for each in distributions()}))
"""


def check_packages(server: Server, needs: Needs) -> Check:
    """Whether the first Python on the server's PATH, whose packages its models import, has them in fit versions."""
    name = "Python packages"
    python = shutil.which("python3", path=server.installation.environment["PATH"])
    if python is None:
        return missing(
            name, "no python3 on the server's PATH", "Install Python, whose packages the models import."
        )
    versions: dict[str, str] = json.loads(program_says(python, "-I", "-c", PACKAGES))
    return judge_packages(versions, needs, python=python, embedded=server.embedded)


def judge_packages(versions: dict[str, str], needs: Needs, *, python: str, embedded: bool) -> Check:
    """What the versions of a Python's packages, by name, mean for the models that import them."""
    name, pip = "Python packages", f"Run `{python} -m pip install"
    anew = f"{pip} -r deploy/triton-requirements.txt`, {OFFLINE}"
    wanted = ["numpy", "pillow", "tifffile", *(["onnxruntime"] if needs.onnx_in_python or embedded else [])]
    wanted += ["opencv-python-headless"] if needs.opencv else []
    listed = ", ".join(f"{package} {versions[package]}" for package in wanted if package in versions)
    if absent := [package for package in wanted if package not in versions]:
        remedy = anew if embedded else f"{pip} {' '.join(absent)}` in the server's image, {OFFLINE}"
        return missing(name, f"no {' and no '.join(absent)}", remedy)
    if embedded and int(versions["numpy"].partition(".")[0]) >= 2:
        found = (
            f"numpy {versions['numpy']}, with which this server answers tensors of 0 bytes; expected numpy 1"
        )
        return missing(name, found, anew)
    pins = dict(PIN.findall(REQUIREMENTS.read_text(encoding="utf-8")))
    others = [
        f"{package} {versions[package]} (tried with {pins[package]})"
        for package in wanted
        if pins.get(package, versions[package]) != versions[package]
    ]
    if embedded and others:
        return warning(name, ", ".join(others), anew)
    return Check(name, listed)

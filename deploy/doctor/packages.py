"""The Python packages that the models import in the server."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from deploy.doctor.check import Check, missing, sentence, warning
from deploy.doctor.needs import Needs
from deploy.doctor.programs import program_says
from deploy.doctor.software import Server

REQUIREMENTS = Path(__file__).parents[1] / "triton-requirements.txt"
PIN = re.compile(r"^([\w-]+)(?:\[[^\]]*\])?==([\w.]+)", re.MULTILINE)
IN_CONTAINER = "install it with pip in the server's image, from a wheel where there is no network"
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
    return judge_packages(name, versions, needs, embedded=server.embedded)


def judge_packages(name: str, versions: dict[str, str], needs: Needs, *, embedded: bool) -> Check:
    """What the versions of the packages by name mean for the models."""
    anew = "make the environment anew: `rm -r .triton; make setup`"
    wanted = ["numpy", "pillow", "tifffile", *(["onnxruntime"] if needs.onnx_in_python or embedded else [])]
    listed = ", ".join(f"{package} {versions[package]}" for package in wanted if package in versions)
    if absent := [package for package in wanted if package not in versions]:
        return missing(name, f"no {' and no '.join(absent)}", sentence(anew if embedded else IN_CONTAINER))
    if embedded and int(versions["numpy"].partition(".")[0]) >= 2:
        found = (
            f"numpy {versions['numpy']}, with which this server answers tensors of 0 bytes; expected numpy 1"
        )
        return missing(name, found, sentence(anew))
    pins = dict(PIN.findall(REQUIREMENTS.read_text(encoding="utf-8")))
    others = [
        f"{package} {versions[package]} (tried with {pins[package]})"
        for package in wanted
        if pins.get(package, versions[package]) != versions[package]
    ]
    if embedded and others:
        return warning(name, ", ".join(others), sentence(anew))
    return Check(name, listed)

"""One release of Triton's image: stated once, and everything that names an image names that one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from model_repository.triton_release import EMBEDDED_VERSION, SERVER_IMAGE, TRITON_RELEASE
from tests.products import ROOT

STATED = Path("model_repository/triton_release.py")
IMAGE_TAG = re.compile(r"tritonserver:(\d\d\.\d\d)")
CONTAINER = re.compile(r"[Cc]ontainer[^\n|.;]{0,20}? (2[4-9]\.(?:0[1-9]|1[0-2]))\b")


def texts() -> dict[Path, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".jpg"):
            found[Path(name)] = path.read_text(errors="replace")
    return found


def test_the_release_stands_in_one_place() -> None:
    stating = [
        path
        for path, text in texts().items()
        if re.search(rf"\b{re.escape(TRITON_RELEASE)}\b", text)
        and path.suffix not in (".md", ".txt")
        and path.parts[0] != "tests"
    ]
    assert stating == [STATED]


def test_whoever_names_an_image_names_the_pinned_one() -> None:
    for path, text in texts().items():
        if path.parts[0] == "tests":
            continue
        for found in (*IMAGE_TAG.findall(text), *(CONTAINER.findall(text) if path.suffix == ".md" else ())):
            assert found == TRITON_RELEASE, path
    assert SERVER_IMAGE.endswith(f":{TRITON_RELEASE}-py3")


def test_the_embedded_server_is_the_one_that_is_installed() -> None:
    requirements = (ROOT / "deploy" / "triton-requirements.txt").read_text()
    (line,) = (line for line in requirements.splitlines() if line.startswith("nvidia-pytriton"))
    assert line.endswith(f"tritonserver {EMBEDDED_VERSION} with the Python backend")
    assert "nvidia-pytriton==0.7.0 " in line

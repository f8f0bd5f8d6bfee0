"""Commands in a process of their own that cannot load torch."""

from __future__ import annotations

import subprocess
import sys

from tests.products import ROOT

UNWANTED = ("torch", "torchvision", "timm")


def run_without_torch(stage: str, command: str, *arguments: object) -> str:
    """Run `python -m <stage> <command> <arguments>` where importing torch or timm fails; what it printed."""
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({UNWANTED!r}))\n"
        f"from {stage}.__main__ import main\n"
        f"main({[command, *map(str, arguments)]!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Read the instructions of a Dockerfile."""

from __future__ import annotations

import re
from pathlib import Path

Instruction = tuple[str, str]


def read_dockerfile(path: Path) -> list[Instruction]:
    """Name and text of each instruction, continued lines joined, comments left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined if line)]

"""What the published models ask of a machine, as their configurations say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deploy.repository import read_config

BACKEND = re.compile(r'^backend: "(.+)"$', re.MULTILINE)
# A list of groups, or one group in braces, which may hold a rate limiter with resources.
INSTANCE_GROUP = re.compile(
    r"^instance_group\s*:?\s*(\[.*?\]$|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})", re.MULTILINE | re.DOTALL
)
RATE_LIMITER = re.compile(r"rate_limiter\s*:?\s*\{(?:[^{}]|\{[^{}]*\})*\}")  # has counts of its own
COUNT = re.compile(r"\bcount: (\d+)")


@dataclass(frozen=True)
class Needs:
    """What is needed to serve all that is published.

    Attributes:
        backends: Triton's backends that run the models.
        gpu: Whether a model is to run on a GPU.
        python_instances: Processes of the Python backend, each with a region of shared memory.
        onnx_in_python: Whether a Python model runs an ONNX graph.
        opencv: Whether a Python model aligns pictures.
    """

    backends: frozenset[str] = frozenset()
    gpu: bool = False
    python_instances: int = 0
    onnx_in_python: bool = False
    opencv: bool = False

    @property
    def beyond_python(self) -> str:
        """The backends that the embedded server lacks, as words; empty where it suffices."""
        return " and ".join(sorted(self.backends - {"python"}))


def read_needs(repository: Path) -> Needs:
    """What the models of a repository need.

    Raises:
        RepositoryError: a configuration cannot be read.
    """
    backends: set[str] = set()
    gpu = onnx_in_python = opencv = False
    python_instances = 0
    for path in repository.glob("*/config.pbtxt"):
        if path.parent.name.startswith("."):  # no model, as for `find_models`
            continue
        config = read_config(path)
        if not (stated := BACKEND.search(config)):  # an ensemble runs nothing itself
            continue
        backends.add(stated[1])
        gpu = gpu or "KIND_GPU" in config
        if stated[1] == "python":
            python_instances += count_instances(config)
            onnx_in_python = onnx_in_python or any(path.parent.glob("*/model.onnx"))
            opencv = opencv or any(path.parent.glob("*/alignment.json"))
    return Needs(frozenset(backends), gpu, python_instances, onnx_in_python, opencv)


def count_instances(config: str) -> int:
    """Instances of a model on the CPU; Triton's own default is one."""
    groups = [COUNT.findall(RATE_LIMITER.sub("", group)) for group in INSTANCE_GROUP.findall(config)]
    return sum(sum(map(int, counts)) or 1 for counts in groups) or 1

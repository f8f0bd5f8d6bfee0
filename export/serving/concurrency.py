"""How many instances of a backbone there are, and how many threads each computes with: chosen from the machine.

`docs/measurements/queues.md` shows `CHOICES` as a table; a test holds it to what is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_THREADS = 8  # of a run: the small maps of one image give no more threads enough to do
GPU_INSTANCES = 2
# With one instance and a bounded queue Triton's batcher now and then sleeps for half a second beside waiting requests
# (docs/measurements/queues.md); a second one keeps it awake.
PYTHON_INSTANCES = 2


@dataclass(frozen=True)
class Concurrency:
    """How a backbone computes.

    Attributes:
        instances: of the model, each with a session of its own.
        threads: of a run on a CPU; 0 where a GPU computes.
        spinning: when threads that have nothing to do spin.
    """

    instances: int
    threads: int
    spinning: str


@dataclass(frozen=True)
class Choice:
    """A line of the table: a machine and what is chosen for it, in words."""

    machine: str
    platforms: str
    instances: str
    threads: str
    spinning: str
    why: str


SPINNING = {"python": "during runs", "onnxruntime": "always", "tensorrt": "none"}

CHOICES = (
    Choice(
        "1 core",
        "`python`; `onnxruntime` on a CPU",
        f"`python` {PYTHON_INSTANCES}, `onnxruntime` 1; SAM: 1",
        "1",
        "none",
        "One thread computes in the caller's; there is nobody to wait for. A second instance keeps the batcher awake.",
    ),
    Choice(
        f"2 to {MAX_THREADS} cores",
        "`python`; `onnxruntime` on a CPU",
        f"`python` {PYTHON_INSTANCES}, `onnxruntime` 1; SAM: 1",
        "one a core",
        "`python` during runs; `onnxruntime` always, since its backend cannot be told otherwise",
        "The steps of one image follow each other, so each may have the whole machine: one image at a time is fastest "
        "so. On `python` the runs take turns, so that no two share the cores.",
    ),
    Choice(
        f"more than {MAX_THREADS} cores",
        "`python`; `onnxruntime` on a CPU",
        f"teacher: one for every {MAX_THREADS} cores, but as above at least; student and SAM as above",
        str(MAX_THREADS),
        "as above",
        f"The maps of one image are too small for more than {MAX_THREADS} threads. All categories share the teacher, "
        "and its weights are paid once; more of a student would be paid for every category. Not measured.",
    ),
    Choice(
        "GPU",
        "`tensorrt`, `onnxruntime` with `cuda` or `tensorrt`",
        f"{GPU_INSTANCES}; SAM: 1",
        "none",
        "none",
        "One instance copies while the other computes. SAM takes gigabytes an image. Not measured.",
    ),
)


def choose_concurrency(
    platform: str, *, on_gpu: bool, shared: bool, cores: int, threads: int = 0, instances: int = 0
) -> Concurrency:
    """What `CHOICES` says of a machine.

    Args:
        platform: `python`, `onnxruntime` or `tensorrt`.
        on_gpu: whether a GPU computes.
        shared: whether every category uses the model, as they do the teacher.
        cores: that the server may use.
        threads: of a run, in place of what is chosen; 0 chooses. The `python` platform never uses more than there are
            cores where it runs.
        instances: in place of what is chosen; 0 chooses.
    """
    if on_gpu:
        return Concurrency(instances or GPU_INSTANCES, 0, "none")
    chosen = threads or min(cores, MAX_THREADS)
    least = PYTHON_INSTANCES if platform == "python" else 1
    shared_out = max(least, cores // MAX_THREADS) if shared else least
    return Concurrency(instances or shared_out, chosen, SPINNING[platform] if chosen > 1 else "none")


def choices_table() -> str:
    """`CHOICES` in Markdown."""
    lines = ["| machine | platform | instances of a backbone | threads of a run | spinning | why |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for choice in CHOICES:
        cells = (
            choice.machine,
            choice.platforms,
            choice.instances,
            choice.threads,
            choice.spinning,
            choice.why,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

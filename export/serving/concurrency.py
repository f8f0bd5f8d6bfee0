"""How many instances a backbone has and with how many threads each computes, chosen from the machine.

docs/measurements/queues.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_THREADS = 8  # of a run: the small maps of one image do not keep more of them busy
GPU_INSTANCES = 2
# With one instance and a bounded queue Triton's batcher now and then sleeps for half a second beside waiting requests.
# A second instance keeps it awake.
PYTHON_INSTANCES = 2


@dataclass(frozen=True)
class Concurrency:
    """How a backbone computes.

    Attributes:
        instances: of the model, each with a session of its own.
        threads: of a run on a CPU; 0 where a GPU computes.
    """

    instances: int
    threads: int


def choose_concurrency(
    platform: str, *, on_gpu: bool, shared: bool, cores: int, threads: int = 0, instances: int = 0
) -> Concurrency:
    """Instances and threads of a backbone for a machine.

    Args:
        platform: `python`, `onnxruntime` or `tensorrt`.
        on_gpu: whether a GPU computes.
        shared: whether every category uses the model, as the teacher. A shared model gets an instance for every
            MAX_THREADS cores: its weights are paid once, a student's would be paid for every category.
        cores: that the server may use.
        threads: of a run, instead of the chosen number; 0 chooses. The `python` platform never uses more threads than
            the machine that serves has cores.
        instances: instead of the chosen number; 0 chooses.
    """
    if on_gpu:
        return Concurrency(instances or GPU_INSTANCES, 0)
    least = PYTHON_INSTANCES if platform == "python" else 1
    chosen = max(least, cores // MAX_THREADS) if shared else least
    return Concurrency(instances or chosen, threads or min(cores, MAX_THREADS))

"""config.pbtxt of the steps that run an ONNX graph or a TensorRT engine: teacher, student and SAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from export.serving.queues import QueuePolicy
from export.serving.steps import PYTHON_INSTANCES, instance_groups, step_config, zeros_warm_up
from export.tensors import TensorSpec
from train.support.cores import usable_cores

MAX_THREADS = 8  # of a run: the small maps of one image do not keep more of them busy
GPU_INSTANCES = 2


@dataclass(frozen=True)
class Concurrency:
    """How a backbone computes.

    Attributes:
        instances: of the model, each with a session of its own.
        threads: of a run on a CPU; 0 where a GPU computes.
    """

    instances: int
    threads: int


@dataclass(frozen=True)
class Platform:
    """What runs the backbones, and how.

    Attributes:
        name: `python` (ONNX Runtime in a Python backend), `onnxruntime` or `tensorrt`.
        provider: of the `onnxruntime` platform: `cpu`, `cuda` or `tensorrt`.
        threads: of one run on a CPU; 0 is chosen from the machine. The `python` platform never uses more threads than
            the machine that serves has cores.
        engine_cache: folder on the server where provider `tensorrt` keeps the engines that it builds; its parent folder
            must exist there.
        instances: of each backbone; 0 is chosen from the machine.
        max_batch_size: images a batch, at most.
    """

    name: str = "python"
    provider: str = "cpu"
    threads: int = 0
    engine_cache: str = "/tmp/astmfr-engines"
    instances: int = 0
    max_batch_size: int = 8

    @property
    def file_name(self) -> str:
        """The file in a version folder that the server opens."""
        return {"python": "model.py", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}[self.name]

    @property
    def on_gpu(self) -> bool:
        """Whether its models need a GPU."""
        return self.name == "tensorrt" or (self.name == "onnxruntime" and self.provider != "cpu")

    def concurrency(self, *, shared: bool) -> Concurrency:
        """Instances and threads of a backbone on this machine; docs/measurements/queues.md says why.

        Args:
            shared: whether every category uses the model, as the teacher. A shared model gets an instance for every
                MAX_THREADS cores: its weights are paid once, a student's would be paid for every category.
        """
        if self.on_gpu:
            return Concurrency(self.instances or GPU_INSTANCES, 0)
        cores = usable_cores()
        least = PYTHON_INSTANCES if self.name == "python" else 1
        chosen = max(least, cores // MAX_THREADS) if shared else least
        return Concurrency(self.instances or chosen, self.threads or min(cores, MAX_THREADS))


def backbone_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    versions: Sequence[int],
    platform: Platform,
    shared: bool = False,
    queue: QueuePolicy | None = None,
    warm_up_sizes: Sequence[int] = (),
) -> pb.ModelConfig:
    """The configuration of teacher, student or SAM.

    Args:
        name: the model's folder.
        inputs, outputs: its tensors.
        versions: the versions that the server loads; the version that an ensemble is pinned to must be among them.
        platform: what runs it.
        shared: whether every category uses it, as the teacher.
        queue: see `step_config`.
        warm_up_sizes: batches to run before the first request; unless given, one image and the largest batch.
    """
    concurrency = platform.concurrency(shared=shared)
    # The largest first: when the first single image comes, the Python backend gives the largest batch's memory back.
    # The second single image is as fast as any.
    sizes = warm_up_sizes or sorted({1, platform.max_batch_size}, reverse=True)
    config = step_config(
        name,
        inputs=inputs,
        outputs=outputs,
        queue=queue,
        max_batch_size=platform.max_batch_size,
        version_policy={"specific": {"versions": versions}},
        backend=platform.name,
        default_model_filename="" if platform.name == "python" else platform.file_name,
        instance_group=_instance_groups(platform, concurrency.instances),
        model_warmup=[zeros_warm_up(f"batch_{size}", inputs, batch_size=size) for size in sizes],
    )
    config.model_warmup[-1].count = 2
    if concurrency.threads:
        config.parameters["intra_op_thread_count"].string_value = str(concurrency.threads)
    if platform.name == "onnxruntime":
        # One operator after the other: the graphs have one branch.
        config.parameters["execution_mode"].string_value = "0"
        if platform.on_gpu:
            _add_accelerator(config, platform, inputs)
    elif platform.name == "tensorrt":
        _configure_tensorrt(config, inputs)
    return config


def _instance_groups(platform: Platform, count: int) -> list[dict[str, Any]]:
    if platform.on_gpu:
        return [
            {"count": count, "kind": "KIND_GPU"}
        ]  # of equal rank: one is to copy while the other computes
    return instance_groups(count, "KIND_CPU" if platform.name == "onnxruntime" else "KIND_AUTO")


def _add_accelerator(config: pb.ModelConfig, platform: Platform, inputs: Sequence[TensorSpec]) -> None:
    """CUDA or TensorRT inside ONNX Runtime."""
    # One stream for copies and kernels: features are used where they were computed.
    cuda = {"do_copy_in_default_stream": "1"}
    parameters = cuda if platform.provider == "cuda" else _tensorrt_provider(config, platform, inputs)
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerators.add(name=platform.provider, parameters=parameters)


def _tensorrt_provider(
    config: pb.ModelConfig, platform: Platform, inputs: Sequence[TensorSpec]
) -> dict[str, str]:
    """Parameters of TensorRT inside ONNX Runtime: an engine cache, and one profile for every batch size.

    Without the profile each new batch size would build another engine. The types are those of the graph, so
    precision_mode stays unset.
    """
    middle = max(1, config.max_batch_size // 2)
    shapes = {
        bound: ",".join(f"{spec.name}:{'x'.join(map(str, (batch, *spec.shape)))}" for spec in inputs)
        for bound, batch in (("min", 1), ("opt", middle), ("max", config.max_batch_size))
    }
    return {
        "trt_engine_cache_enable": "1",
        # The same folder for all models: the provider creates only the last folder of a path.
        "trt_engine_cache_path": platform.engine_cache,
        "trt_engine_cache_prefix": config.name,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": platform.engine_cache,
        **{f"trt_profile_{bound}_shapes": shape for bound, shape in shapes.items()},
    }


def _configure_tensorrt(config: pb.ModelConfig, inputs: Sequence[TensorSpec]) -> None:
    """Record CUDA graphs of the most frequent batches: one launch an image instead of one a layer."""
    cuda = config.optimization.cuda
    cuda.graphs = True
    powers = {1 << power for power in range(config.max_batch_size.bit_length())}
    for size in sorted({*powers, config.max_batch_size}):
        graph = cuda.graph_spec.add(batch_size=size)
        for spec in inputs:
            graph.input[spec.name].dim.extend(spec.shape)

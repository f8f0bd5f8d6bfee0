"""config.pbtxt of the steps that run an ONNX graph or a TensorRT engine: teacher, student and SAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from export.serving.native_pictures import NativePictures
from export.serving.queues import QueuePolicy
from export.serving.steps import LEAST_INSTANCES, instance_groups, step_config, zeros_warm_up
from export.tensors import TensorSpec
from train.support.cores import usable_cores

MAX_THREADS = 8  # of a run: the small maps of one image do not keep more of them busy
GPU_INSTANCES = 2
# ONNX Runtime's backend reads these four as parameters of the model. Where a model has any parameter, those of the CUDA
# accelerator are overwritten with the backend's defaults.
CUDA_PARAMETERS = {
    "cudnn_conv_algo_search": "1",  # HEURISTIC; 0 would try every algorithm anew for each new size of a batch
    "gpu_mem_limit": str(2**64 - 1),  # none
    "arena_extend_strategy": "0",  # the next power of two
    "do_copy_in_default_stream": "1",  # features are used in the stream in which they were computed
}


@dataclass(frozen=True)
class Concurrency:
    """How a backbone computes.

    Attributes:
        instances: of the model, each with a session of its own.
        threads: of a run on a CPU, on the `onnxruntime` platform of the pool that all sessions share; 0 where a GPU
            computes.
    """

    instances: int
    threads: int


@dataclass(frozen=True)
class Platform:
    """What runs the backbones, and how.

    Attributes:
        name: `python` (ONNX Runtime in a Python backend), `onnxruntime` or `tensorrt`.
        provider: of the `onnxruntime` platform: `cpu`, `cuda` or `tensorrt`.
        threads: of one run on a CPU; 0 is chosen from the machine. Never more are used than the machine that serves
            has cores. On the `onnxruntime` platform all sessions share one pool, which `deploy` makes this large when
            it starts the server; 0 is a thread for each core there.
        engine_cache: folder on the server where provider `tensorrt` keeps the engines that it builds; its parent folder
            must exist there.
        instances: of each backbone; 0 is chosen from the machine.
        max_batch_size: images a batch, at most; 0 is chosen when a build is published, see
            `export.serving.throughput.chosen_batch`.
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

    @property
    def one_pool(self) -> bool:
        """Whether all sessions of the server share one pool of threads, as `deploy` starts it."""
        return self.name == "onnxruntime" and not self.on_gpu

    def concurrency(self, *, shared: bool) -> Concurrency:
        """Instances and threads of a backbone on this machine; docs/measurements/queues.md says why.

        Args:
            shared: whether every category uses the model, as the teacher. A shared model gets an instance for every
                MAX_THREADS cores: its weights are paid once, a student's would be paid for every category.
        """
        if self.on_gpu:
            return Concurrency(self.instances or GPU_INSTANCES, 0)
        cores = usable_cores()
        chosen = max(LEAST_INSTANCES, cores // MAX_THREADS) if shared else LEAST_INSTANCES
        most = cores if self.one_pool else min(cores, MAX_THREADS)
        return Concurrency(self.instances or chosen, self.threads or most)


def backbone_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    versions: Sequence[int],
    platform: Platform,
    shared: bool = False,
    memory_arena: bool = True,
    queue: QueuePolicy | None = None,
    warm_up_sizes: Sequence[int] = (),
    native: NativePictures | None = None,
    usual_inputs: Sequence[TensorSpec] = (),
) -> pb.ModelConfig:
    """The configuration of teacher, student or SAM.

    Args:
        name: the model's folder.
        inputs, outputs: its tensors.
        versions: the versions that the server loads; the version that an ensemble is pinned to must be among them.
        platform: what runs it.
        shared: whether every category uses it, as the teacher.
        memory_arena: whether a session on the CPU keeps the memory of a run for the next one; see `_set_memory`.
        queue: see `step_config`.
        warm_up_sizes: batches to run before the first request; unless given, one image and the largest batch.
        native: how pictures that keep their own size are run; None where they have one size.
        usual_inputs: the inputs that it is warmed up with; unless given, `inputs`.
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
        model_warmup=[
            zeros_warm_up(f"batch_{size}", usual_inputs or inputs, batch_size=size) for size in sizes
        ],
    )
    config.model_warmup[-1].count = 2
    # The pool's threads are those of the machine that serves, unless they were stated.
    if threads := platform.threads if platform.one_pool else concurrency.threads:
        config.parameters["intra_op_thread_count"].string_value = str(threads)
    if native is not None and platform.name == "python":  # other backends run whole pictures
        for parameter, value in native.parameters().items():
            config.parameters[parameter].string_value = value
    _set_backend(config, platform, inputs, memory_arena=memory_arena, native=native is not None)
    return config


def _set_backend(
    config: pb.ModelConfig,
    platform: Platform,
    inputs: Sequence[TensorSpec],
    *,
    memory_arena: bool,
    native: bool,
) -> None:
    """What ONNX Runtime's and TensorRT's backends are told."""
    if platform.name == "onnxruntime":
        # One operator after the other: the graphs have one branch.
        config.parameters["execution_mode"].string_value = "0"
        if platform.on_gpu:
            _add_accelerator(config, platform, inputs)
        else:
            _set_memory(config, memory_arena=memory_arena or native)
            if native:  # an arena would keep the memory of the largest picture for ever
                config.parameters["memory.enable_memory_arena_shrinkage"].string_value = "cpu:0"
    elif platform.name == "tensorrt":
        _configure_tensorrt(config, inputs)


def _instance_groups(platform: Platform, count: int) -> list[dict[str, Any]]:
    if platform.on_gpu:
        # Of equal rank: one is to copy while the other computes.
        return [{"count": count, "kind": "KIND_GPU"}]
    return instance_groups(count)


def _set_memory(config: pb.ModelConfig, *, memory_arena: bool) -> None:
    """Weights beside the arena, as in the sessions of the `python` platform, and no arena where it costs more.

    With 15 categories of `edge` the server had 692 MiB without arenas and 1461 with them, as fast within noise
    (docs/measurements/onnxruntime-backend.md). The tensors of large networks are worth keeping, as the `python`
    platform's sessions do: new pages for each run take time.
    """
    config.parameters["session.use_device_allocator_for_initializers"].string_value = "1"
    if not memory_arena:
        config.parameters["enable_mem_arena"].string_value = "0"


def _add_accelerator(config: pb.ModelConfig, platform: Platform, inputs: Sequence[TensorSpec]) -> None:
    """CUDA or TensorRT inside ONNX Runtime."""
    for name, value in CUDA_PARAMETERS.items():
        config.parameters[name].string_value = value
    parameters = {} if platform.provider == "cuda" else _tensorrt_provider(config, platform, inputs)
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

"""config.pbtxt of the steps that run an ONNX graph or a TensorRT engine: teacher, student and SAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from export.serving.concurrency import Concurrency, choose_concurrency
from export.serving.queues import QueuePolicy
from export.serving.steps import set_instances, step_config, zeros_warm_up
from export.tensors import TensorSpec
from train.support.cores import usable_cores


@dataclass(frozen=True)
class Platform:
    """What runs the backbones.

    Attributes:
        name: `python` (ONNX Runtime in a Python backend), `onnxruntime` or `tensorrt`.
        provider: of the `onnxruntime` platform: `cpu`, `cuda` or `tensorrt`.
        threads: of one run on a CPU; 0 is chosen from the machine.
        engine_cache: folder on the server where provider `tensorrt` keeps the engines that it builds; its parent folder
            must exist there.
        instances: of each backbone; 0 is chosen from the machine.
    """

    name: str = "python"
    provider: str = "cpu"
    threads: int = 0
    engine_cache: str = "/tmp/astmfr-engines"
    instances: int = 0

    @property
    def file_name(self) -> str:
        """The file in a version folder that the server opens."""
        return {"python": "model.py", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}[self.name]

    @property
    def on_gpu(self) -> bool:
        """Whether its models need a GPU."""
        return self.name == "tensorrt" or (self.name == "onnxruntime" and self.provider != "cpu")

    def concurrency(self, *, shared: bool) -> Concurrency:
        """Instances and threads of a backbone on this machine; `shared` by all categories, as the teacher is."""
        return choose_concurrency(
            self.name,
            on_gpu=self.on_gpu,
            shared=shared,
            cores=usable_cores(),
            threads=self.threads,
            instances=self.instances,
        )


def backbone_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    versions: Sequence[int],
    platform: Platform,
    max_batch_size: int,
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
        max_batch_size: images a batch, at most.
        shared: whether every category uses it, as the teacher.
        queue: see `step_config`.
        warm_up_sizes: batches to run before the first request; unless given, one image and the largest batch.
    """
    config = step_config(name, inputs=inputs, outputs=outputs, max_batch_size=max_batch_size, queue=queue)
    concurrency = platform.concurrency(shared=shared)
    config.version_policy.specific.versions.extend(versions)
    config.backend = platform.name
    set_instances(config, concurrency.instances)
    if concurrency.threads:
        config.parameters["intra_op_thread_count"].string_value = str(concurrency.threads)
    if platform.name != "python":
        config.default_model_filename = platform.file_name
    if platform.on_gpu:
        # Of equal rank: one is to copy while the other computes.
        del config.instance_group[:]
        config.instance_group.add(count=concurrency.instances, kind=pb.ModelInstanceGroup.KIND_GPU)
    if platform.name == "onnxruntime":
        _configure_onnxruntime(config, platform, inputs)
    elif platform.name == "tensorrt":
        _configure_tensorrt(config, inputs)
    # The largest first: when the first single image comes, the Python backend gives the largest batch's memory back.
    # The second single image is as fast as any.
    sizes = warm_up_sizes or sorted({1, max_batch_size}, reverse=True)
    config.model_warmup.extend(zeros_warm_up(f"batch_{size}", inputs, batch_size=size) for size in sizes)
    config.model_warmup[-1].count = 2
    return config


def _configure_onnxruntime(config: pb.ModelConfig, platform: Platform, inputs: Sequence[TensorSpec]) -> None:
    """Settings of ONNX Runtime's backend on a CPU, or with CUDA or TensorRT on a GPU."""
    # One operator after the other: the graphs have one branch.
    config.parameters["execution_mode"].string_value = "0"
    if platform.provider == "cpu":
        for group in config.instance_group:
            group.kind = pb.ModelInstanceGroup.KIND_CPU
        return
    if platform.provider == "cuda":
        # One stream for copies and kernels: features are used where they were computed.
        parameters = {"do_copy_in_default_stream": "1"}
    else:
        parameters = _tensorrt_provider(config, platform, inputs)
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

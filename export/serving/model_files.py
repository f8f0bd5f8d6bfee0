"""What Triton holds a model's configuration to, written down once, for the platforms that need NVIDIA's container.

A server that is not here cannot refuse a configuration, and some faults it never tells: unknown parameters are
ignored, and a profile that is too small fails with the first full batch. So each rule stands here with its source and
is checked before anything is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from tritonclient.grpc import model_config_pb2 as pb

from export.manifest import EngineRecord
from export.tensors import TensorSpec

SERVER_DOCS = "https://github.com/triton-inference-server/server/blob/main/docs/user_guide/"
ONNXRUNTIME_DOCS = "https://github.com/triton-inference-server/onnxruntime_backend/blob/main/README.md"
TENSORRT_DOCS = "https://github.com/triton-inference-server/tensorrt_backend/blob/main/README.md"

FILE_NAMES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
ONNX_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}
UNBOUNDED = 1 << 30  # the batch of an ONNX graph

# All that the backends read; other keys they pass over without a word.
ONNXRUNTIME_PARAMETERS = {
    "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern",
    "memory.enable_memory_arena_shrinkage", "share_session_between_instances",
    "session.use_device_allocator_for_initializers",
}  # fmt: skip
TENSORRT_PARAMETERS = {"execution_context_allocation_strategy"}
ACCELERATOR_PARAMETERS = {
    "cuda": {
        "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
        "cudnn_conv_use_max_workspace", "use_ep_level_unified_stream",
    },
    "tensorrt": {
        "max_workspace_size_bytes", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_engine_cache_enable",
        "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_timing_cache_enable", "trt_timing_cache_path",
        "trt_builder_optimization_level", "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes",
        "trt_cuda_graph_enable", "trt_context_memory_sharing_enable",
    },
}  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """What a model's file itself says.

    Attributes:
        inputs, outputs: without the batch.
        min_batch, max_batch: images that it takes in a run.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    min_batch: int
    max_batch: int

    @classmethod
    def of_onnx(cls, path: Path) -> ModelFile:
        """Of an ONNX graph; a batch that is a number is the only one it takes."""
        graph = onnx.load(path, load_external_data=False).graph
        first = graph.input[0].type.tensor_type.shape.dim[0]
        fixed = first.dim_value if first.HasField("dim_value") else None
        return cls(
            inputs=tuple(_onnx_spec(value) for value in graph.input),
            outputs=tuple(_onnx_spec(value) for value in graph.output),
            min_batch=fixed or 1,
            max_batch=fixed or UNBOUNDED,
        )

    @classmethod
    def of_engine(cls, record: EngineRecord) -> ModelFile:
        """Of an engine, which can be opened on its own kind of GPU alone: what was recorded when it was built."""
        return cls(record.inputs, record.outputs, record.options.min_batch, record.options.max_batch)


@dataclass(frozen=True)
class Rule:
    """A rule, where it is written, and what a configuration does against it: a sentence each."""

    says: str
    source: str
    broken: Callable[[pb.ModelConfig, ModelFile], list[str]]


def broken_rules(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    """What a teacher's, student's or SAM's configuration does against the rules, a sentence and its source each.

    Args:
        config: of the `onnxruntime` or `tensorrt` platform.
        file: the model that it opens.
    """
    return [f"{sentence} ({rule.source})" for rule in RULES for sentence in rule.broken(config, file)]


def broken_pins(ensemble: pb.ModelConfig, models: Mapping[str, pb.ModelConfig]) -> list[str]:
    """Steps of an ensemble that are not pinned to a version which their model loads (`ensemble_models.md`)."""
    told = []
    for step in ensemble.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if step.model_version < 1:
            told.append(f"{ensemble.name} takes whatever version of {step.model_name} is newest")
        elif model is not None and model.version_policy.HasField("specific"):
            loaded = list(model.version_policy.specific.versions)
            if step.model_version not in loaded:
                told.append(
                    f"{ensemble.name} is pinned to version {step.model_version} of {step.model_name}, which loads "
                    f"{loaded}"
                )
    return told


def _backend(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    expected = FILE_NAMES.get(config.backend)
    if expected is None:
        return [f"backend {config.backend!r} is none of {sorted(FILE_NAMES)}"]
    if config.default_model_filename != expected:
        return [
            f"backend {config.backend} opens {expected}, and the file is {config.default_model_filename!r}"
        ]
    return []


def _tensors(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    told = []
    for kind, configured, held in (
        ("input", config.input, file.inputs),
        ("output", config.output, file.outputs),
    ):
        ours = {_config_spec(tensor) for tensor in configured}
        told += [f"{kind} {spec} is not in the file" for spec in sorted(ours - set(held), key=str)]
        told += [f"the file's {kind} {spec} is not configured" for spec in sorted(set(held) - ours, key=str)]
    return told


def _batches(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    if file.min_batch <= 1 and config.max_batch_size <= file.max_batch:
        return []
    return [
        f"batches of 1 to {config.max_batch_size} are configured, and the file takes {file.min_batch} to "
        f"{file.max_batch}"
    ]


def _onnxruntime_parameters(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    if config.backend != "onnxruntime":
        return []
    told = _unknown_parameters(config, ONNXRUNTIME_PARAMETERS)
    accelerators = config.optimization.execution_accelerators
    for accelerator in accelerators.gpu_execution_accelerator:
        if accelerator.name not in ACCELERATOR_PARAMETERS:
            told.append(f"accelerator {accelerator.name!r} is none of {sorted(ACCELERATOR_PARAMETERS)}")
            continue
        unknown = set(accelerator.parameters) - ACCELERATOR_PARAMETERS[accelerator.name]
        told += [f"accelerator {accelerator.name} knows no {key!r}" for key in sorted(unknown)]
    return told


def _tensorrt_parameters(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    return _unknown_parameters(config, TENSORRT_PARAMETERS) if config.backend == "tensorrt" else []


def _unknown_parameters(config: pb.ModelConfig, known: set[str]) -> list[str]:
    unknown = sorted(set(config.parameters) - known)
    return [f"parameter {key!r} is unknown to backend {config.backend}" for key in unknown]


def _threads(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    if config.backend != "onnxruntime" or _kind(config) != "KIND_CPU":
        return []
    set_to = {key: value.string_value for key, value in config.parameters.items()}
    told = []
    if not set_to.get("intra_op_thread_count", "").isdecimal():
        told.append("the threads of an operator are not set (intra_op_thread_count)")
    if set_to.get("execution_mode") != "0":
        told.append("operators are not told to run one after the other (execution_mode 0)")
    return told


def _devices(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    accelerated = bool(config.optimization.execution_accelerators.gpu_execution_accelerator)
    if (config.backend == "tensorrt" or accelerated) and _kind(config) != "KIND_GPU":
        return [f"its instances are {_kind(config)}, and it runs on KIND_GPU alone"]
    return []


def _cuda_graphs(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    if config.backend != "tensorrt":
        return []
    cuda = config.optimization.cuda
    if not cuda.graphs:
        return ["CUDA graphs are off"]
    sizes = [graph.batch_size for graph in cuda.graph_spec]
    told = []
    if 1 not in sizes or config.max_batch_size not in sizes:
        told.append(f"CUDA graphs are recorded of batches {sizes}, not of 1 and {config.max_batch_size}")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in config.input}
    for graph in cuda.graph_spec:
        recorded = {name: tuple(shape.dim) for name, shape in graph.input.items()}
        if not 1 <= graph.batch_size <= config.max_batch_size or recorded != shapes:
            told.append(f"the CUDA graph of batch {graph.batch_size} is not one of the inputs {shapes}")
    return told


def _versions(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    if config.version_policy.specific.versions:
        return []
    return ["its versions are not named one by one, so that a new one could push out the live one"]


def _queue(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    bounded = config.dynamic_batching.default_queue_policy.max_queue_size > 0
    return [] if config.HasField("dynamic_batching") and bounded else ["its queue has no bound"]


def _warm_up(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    names = {tensor.name for tensor in config.input}
    if any(set(warm_up.inputs) == names for warm_up in config.model_warmup):
        return []
    return ["no warm-up runs it with all of its inputs"]


RULES: Sequence[Rule] = (
    Rule("Each backend opens a file of its own name.", SERVER_DOCS + "model_repository.md", _backend),
    Rule("Names, types and shapes are the file's.", SERVER_DOCS + "model_configuration.md", _tensors),
    Rule(
        "Every batch up to max_batch_size is one that the file takes: in TensorRT, within its profile.",
        SERVER_DOCS + "model_configuration.md",
        _batches,
    ),
    Rule("Parameters are ones that ONNX Runtime's backend reads.", ONNXRUNTIME_DOCS, _onnxruntime_parameters),
    Rule("Parameters are ones that TensorRT's backend reads.", TENSORRT_DOCS, _tensorrt_parameters),
    Rule("ONNX Runtime on a CPU is told its threads.", ONNXRUNTIME_DOCS, _threads),
    Rule("What needs a GPU has its instances there.", SERVER_DOCS + "model_configuration.md", _devices),
    Rule(
        "TensorRT's launches are recorded as CUDA graphs.",
        SERVER_DOCS + "model_configuration.md",
        _cuda_graphs,
    ),
    Rule("Loaded versions are named.", SERVER_DOCS + "model_configuration.md", _versions),
    Rule("Every queue is bounded.", SERVER_DOCS + "model_configuration.md", _queue),
    Rule("Every step is warm before its first request.", SERVER_DOCS + "model_configuration.md", _warm_up),
)


def _kind(config: pb.ModelConfig) -> str:
    return str(pb.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind))


def _config_spec(tensor: pb.ModelInput | pb.ModelOutput) -> TensorSpec:
    data_type = str(pb.DataType.Name(tensor.data_type)).removeprefix("TYPE_")
    return TensorSpec(tensor.name, data_type, tuple(tensor.dims))


def _onnx_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)[1:]
    return TensorSpec(value.name, ONNX_TYPES.get(tensor.elem_type, str(tensor.elem_type)), shape)

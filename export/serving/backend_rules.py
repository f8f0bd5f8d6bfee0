"""Rules of Triton's batcher and its ONNX Runtime backend that neither of them tells when a configuration breaks them.

`docs/measurements/onnxruntime-backend.md` says what breaking them costs.
"""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from export.serving.steps import LEAST_INSTANCES

# What the ONNX Runtime backend of release 26.06 reads among a model's parameters. Others it passes over in silence.
CUDA_KEYS = frozenset(
    {"cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"}
)
SESSION_KEYS = frozenset(
    {
        "execution_mode",
        "intra_op_thread_count",
        "inter_op_thread_count",
        "enable_mem_arena",
        "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",
    }
)
SEARCH, EXHAUSTIVE = "cudnn_conv_algo_search", "0"


def broken_rules(config: pb.ModelConfig) -> list[str]:
    """Where the configuration of a step breaks a rule, a sentence each."""
    sentences = [*_placement(config)]
    if config.backend == "onnxruntime":
        sentences += _unread_parameters(config)
        if _may_use_gpu(config):
            sentences += _cuda_parameters(config)
    return sentences


def lone_instance(config: pb.ModelConfig) -> str | None:
    """That a queue of bounded size or time has one instance behind it, in a sentence; None where it has more."""
    policy = config.dynamic_batching.default_queue_policy
    bounded = policy.max_queue_size or policy.default_timeout_microseconds
    instances = sum(group.count for group in config.instance_group)
    if not (config.HasField("dynamic_batching") and bounded) or instances >= LEAST_INSTANCES:
        return None
    return (
        f"{config.name} has one instance behind a bounded queue, where a request now and then waits for half a second; "
        f"give --instances {LEAST_INSTANCES} or more"
    )


def start_options(threads: int) -> str:
    """What makes a server's sessions share one pool, in a sentence; 0 threads are one for each of its cores."""
    return (
        "`deploy serve` starts Triton with one pool of threads for all sessions; another launcher needs "
        "--backend-config=onnxruntime,enable-global-threadpool=1, "
        f"--backend-config=onnxruntime,intra_op_thread_count={threads or '<its cores>'}, "
        "--rate-limit=execution_count, and MALLOC_ARENA_MAX=2 in its environment"
    )


def _placement(config: pb.ModelConfig) -> Iterator[str]:
    """Triton starts instances of no stated kind on the CPU where it sees no GPU, and else on every GPU."""
    kinds = {group.kind for group in config.instance_group} or {pb.ModelInstanceGroup.KIND_AUTO}
    if pb.ModelInstanceGroup.KIND_AUTO in kinds:
        yield "an instance group has no kind, and Triton would start it on every GPU; expected KIND_CPU or KIND_GPU"


def _unread_parameters(config: pb.ModelConfig) -> Iterator[str]:
    for name in sorted(set(config.parameters) - SESSION_KEYS - CUDA_KEYS):
        yield f"parameter {name} is read by nobody"


def _cuda_parameters(config: pb.ModelConfig) -> Iterator[str]:
    """With any parameter of the model the backend overwrites these of the accelerator with its defaults."""
    for accelerator in config.optimization.execution_accelerators.gpu_execution_accelerator:
        for name in sorted(CUDA_KEYS & set(accelerator.parameters)):
            yield f"{name} of accelerator {accelerator.name} is overwritten; expected among the model's parameters"
    for name in sorted(CUDA_KEYS - set(config.parameters)):
        yield f"{name} is missing among the model's parameters, and the backend would take its default"
    warm = {warm_up.batch_size for warm_up in config.model_warmup}
    exhaustive = SEARCH in config.parameters and config.parameters[SEARCH].string_value == EXHAUSTIVE
    if exhaustive and not warm.issuperset(range(1, config.max_batch_size + 1)):
        yield (
            f"{SEARCH} is 0 (EXHAUSTIVE), which tries every algorithm at the first batch of each size; "
            "expected 1 (HEURISTIC), or a warm-up of every size"
        )


def _may_use_gpu(config: pb.ModelConfig) -> bool:
    return any(group.kind != pb.ModelInstanceGroup.KIND_CPU for group in config.instance_group)

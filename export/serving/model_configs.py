"""config.pbtxt of every model that is served, through Triton's own ModelConfig protobuf.

`tests/export/serving/test_model_configs.py` holds the two committed backends to what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.serving.concurrency import PYTHON_INSTANCES, Concurrency, choose_concurrency
from export.serving.queues import QueuePolicy
from export.tensors import DISTANCES, TEACHER_OUTPUTS, TensorSpec
from model_repository.distance_fusion.map_fusion import MAP_OUTPUTS, VERDICT_OUTPUTS
from train.support.cores import usable_cores

HEADER = "# Written by `python -m export publish`; changes here are lost.\n"
FULL_IMAGE_SIZE = 256  # the paper's; models of another size carry it in their name
ENGINE_CACHE = (
    "/tmp/astmfr-engines"  # where ONNX Runtime's TensorRT provider keeps what it built, in the container
)

# Runs of the first instance to one of a spare one, where neither is busy.
SPARE_PRIORITY = 1000


def to_text(config: pb.ModelConfig) -> str:
    """The configuration as config.pbtxt."""
    return HEADER + str(text_format.MessageToString(config))


def teacher_name(backbone: str, image_size: int, *, precision: str = "fp32") -> str:
    """`teacher_<backbone>`, shared by every category of one image size and precision."""
    return _of_precision(_sized(f"teacher_{backbone}", image_size), precision)


def student_name(category: str, *, precision: str = "fp32") -> str:
    """`<category>_student`; another precision has other types, and a model's versions share theirs."""
    return _of_precision(f"{category}_student", precision)


def decoder_name(image_size: int) -> str:
    """`image_decoder`, or its sibling for another image size."""
    return _sized("image_decoder", image_size)


def foreground_name(method: str, image_size: int) -> str:
    """`foreground` or `foreground_sam`, or their siblings for another image size."""
    return _sized("foreground_sam" if method == "sam" else "foreground", image_size)


def image_spec(image_size: int) -> TensorSpec:
    """The `image` tensor: plain RGB bytes."""
    return TensorSpec("image", "UINT8", (image_size, image_size, 3))


def feature_specs(image_size: int, channels: Sequence[int], *, precision: str = "fp32") -> list[TensorSpec]:
    """The teacher's features at strides 4, 8 and 16; in half precision they are half as large."""
    data_type = "FP16" if precision == "fp16" else "FP32"
    return [
        TensorSpec(name, data_type, (count, image_size // stride, image_size // stride))
        for name, count, stride in zip(TEACHER_OUTPUTS, channels, (4, 8, 16), strict=True)
    ]


def distance_specs(image_size: int) -> list[TensorSpec]:
    """The student's distance maps at strides 4, 8 and 16."""
    return [
        TensorSpec(name, "FP32", (image_size // stride, image_size // stride))
        for name, stride in zip(DISTANCES, (4, 8, 16), strict=True)
    ]


def verdict_specs(image_size: int) -> list[TensorSpec]:
    """What the fusion gives; an image size of -1 is any."""
    square = (image_size, image_size)
    types = ("FP32", "FP32", "BOOL", "BOOL", "FP32", "INT64")
    shapes = [square if name in MAP_OUTPUTS else (1,) for name in VERDICT_OUTPUTS]
    return [
        TensorSpec(name, data_type, shape)
        for name, data_type, shape in zip(VERDICT_OUTPUTS, types, shapes, strict=True)
    ]


def foreground_spec(image_size: int) -> TensorSpec:
    """The part's mask; an image size of -1 is any."""
    return TensorSpec("foreground", "BOOL", (image_size, image_size))


RELEASE_ID = TensorSpec("release_id", "INT64", (1,))
ENCODED_IMAGE = TensorSpec("encoded_image", "STRING", (1,))
ORIGINAL_SIZE = TensorSpec("original_size", "INT32", (2,))


@dataclass(frozen=True)
class Platform:
    """What runs the backbones.

    Attributes:
        name: `python` (ONNX Runtime in a Python backend), `onnxruntime` or `tensorrt`.
        provider: of the `onnxruntime` platform: `cpu`, `cuda` or `tensorrt`.
        threads: of one run on a CPU; 0 is chosen from the machine.
        engine_cache: where provider `tensorrt` keeps what it built, on the server; the folder above must exist there.
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
    """A teacher's, student's or SAM's configuration.

    Args:
        name: the model's folder.
        inputs: what it takes.
        outputs: what it gives.
        versions: those that are loaded; an ensemble's pinned one must be among them.
        platform: what runs it.
        max_batch_size: images, at most.
        shared: whether every category uses it, as they do the teacher.
        queue: who may wait; 64 requests for any time unless given.
        warm_up_sizes: batches to run before the first request; one image and the largest batch unless given.
    """
    config = _step_config(name, inputs=inputs, outputs=outputs, max_batch_size=max_batch_size, queue=queue)
    concurrency = platform.concurrency(shared=shared)
    config.version_policy.specific.versions.extend(versions)
    config.backend = platform.name
    _set_instances(config, concurrency.instances)
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
    # The largest first: the Python backend gives back what that took with the first image that comes alone, and the
    # second is as fast as any.
    sizes = warm_up_sizes or sorted({1, max_batch_size}, reverse=True)
    config.model_warmup.extend(_warm_up(f"batch_{size}", inputs, batch_size=size) for size in sizes)
    config.model_warmup[-1].count = 2
    return config


def _configure_onnxruntime(config: pb.ModelConfig, platform: Platform, inputs: Sequence[TensorSpec]) -> None:
    """A CPU alone; or CUDA or TensorRT inside ONNX Runtime on a GPU."""
    # One operator after the other: the graphs have one branch.
    config.parameters["execution_mode"].string_value = "0"
    if platform.provider == "cpu":
        for group in config.instance_group:
            group.kind = pb.ModelInstanceGroup.KIND_CPU
    if platform.provider == "cuda":
        # One stream for copies and kernels: features are used where they were computed.
        accelerator = {"do_copy_in_default_stream": "1"}
    elif platform.provider == "tensorrt":
        # Types stand in the graph, so no precision_mode. One profile for all batches, or every new size builds anew.
        shapes = {
            bound: ",".join(
                f"{spec.name}:{'x'.join(str(side) for side in (batch, *spec.shape))}" for spec in inputs
            )
            for bound, batch in (
                ("min", 1),
                ("opt", max(1, config.max_batch_size // 2)),
                ("max", config.max_batch_size),
            )
        }
        accelerator = {
            "trt_engine_cache_enable": "1",
            # One folder for all, since the provider makes no more than the last one of a path.
            "trt_engine_cache_path": platform.engine_cache,
            "trt_engine_cache_prefix": config.name,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": platform.engine_cache,
            **{f"trt_profile_{bound}_shapes": shape for bound, shape in shapes.items()},
        }
    else:
        return
    config.optimization.execution_accelerators.gpu_execution_accelerator.append(
        pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator(
            name=platform.provider, parameters=accelerator
        )
    )


def _configure_tensorrt(config: pb.ModelConfig, inputs: Sequence[TensorSpec]) -> None:
    """CUDA graphs of the batches that come most: a launch an image in place of one a layer."""
    cuda = config.optimization.cuda
    cuda.graphs = True
    for size in graph_batches(config.max_batch_size):
        graph = cuda.graph_spec.add(batch_size=size)
        for spec in inputs:
            graph.input[spec.name].dim.extend(spec.shape)


def graph_batches(max_batch_size: int) -> list[int]:
    """1, 2, 4 and so on, and the largest: the batches whose launches are recorded."""
    powers = [1 << power for power in range(max_batch_size.bit_length())]
    return sorted({*(size for size in powers if size < max_batch_size), max_batch_size})


def distance_fusion_config(queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The fusion of every category and image size; `queue` as in `backbone_config`."""
    inputs = [*(TensorSpec(name, "FP32", (-1, -1)) for name in DISTANCES), RELEASE_ID]
    config = _step_config(
        "distance_fusion", inputs=inputs, outputs=verdict_specs(-1), max_batch_size=128, queue=queue
    )
    mask = input_of(foreground_spec(-1))
    mask.optional = True  # an ensemble whose release keeps the background maps nothing to it
    config.input.append(mask)
    config.backend = "python"
    warm_up = _warm_up("paper_size", [*distance_specs(FULL_IMAGE_SIZE), RELEASE_ID], batch_size=1)
    config.model_warmup.append(warm_up)
    return config


def image_decoder_config(image_size: int, queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The decoder for one image size; `queue` as in `backbone_config`."""
    config = _step_config(
        decoder_name(image_size),
        inputs=[ENCODED_IMAGE],
        outputs=[image_spec(image_size), ORIGINAL_SIZE],
        max_batch_size=128,
        queue=queue,
    )
    config.backend = "python"
    # A real file: a decoder cannot be warmed up with zeros.
    warm_up = pb.ModelWarmup(name="one_png", batch_size=1)
    warm_up.inputs["encoded_image"].CopyFrom(
        pb.ModelWarmup.Input(data_type=pb.TYPE_STRING, dims=[1], input_data_file="encoded_image")
    )
    config.model_warmup.append(warm_up)
    return config


def foreground_config(image_size: int, queue: QueuePolicy | None = None) -> pb.ModelConfig:
    """The `threshold` method of background removal for one image size; `queue` as in `backbone_config`."""
    image = image_spec(image_size)
    config = _step_config(
        foreground_name("threshold", image_size),
        inputs=[image],
        outputs=[foreground_spec(image_size)],
        max_batch_size=128,
        queue=queue,
    )
    config.backend = "python"
    config.model_warmup.append(_warm_up("black", [image], batch_size=1))
    return config


def _step_config(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int,
    queue: QueuePolicy | None,
) -> pb.ModelConfig:
    """Instances with one bounded queue in which waiting requests are batched."""
    config = pb.ModelConfig(name=name, max_batch_size=max_batch_size)
    config.input.extend(input_of(spec) for spec in inputs)
    config.output.extend(output_of(spec) for spec in outputs)
    _set_instances(config, PYTHON_INSTANCES)
    queue = queue or QueuePolicy()
    config.dynamic_batching.default_queue_policy.CopyFrom(_queue_policy(queue))
    if queue.batch:
        config.dynamic_batching.preferred_batch_size.append(min(queue.batch, max_batch_size))
    return config


def _set_instances(config: pb.ModelConfig, count: int) -> None:
    """One instance, and spare ones for what comes while it is busy.

    Instances of equal rank would work image by image in turn, each with its weights gone cold by then: a twentieth of
    an image's time on a CPU (docs/measurements/queues.md). The server heeds it with `--rate-limit=execution_count`, as
    `deploy` starts it.
    """
    del config.instance_group[:]
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO)
    if count > 1:
        spare = config.instance_group.add(count=count - 1, kind=pb.ModelInstanceGroup.KIND_AUTO)
        spare.rate_limiter.priority = SPARE_PRIORITY


def _queue_policy(queue: QueuePolicy) -> pb.ModelQueuePolicy:
    """A bound, and a time only where a latency budget asks for it.

    Without one 64 requests are done within any sensible deadline, a client that gives up cancels its own, and a time
    makes the batcher stall more often (docs/measurements/queues.md).
    """
    # Refused when the time is up, and no client may change it: both are Triton's defaults, which the text leaves out.
    return pb.ModelQueuePolicy(
        max_queue_size=queue.size,
        default_timeout_microseconds=queue.timeout_us,
        timeout_action=pb.ModelQueuePolicy.REJECT,
        allow_timeout_override=False,
    )


def _warm_up(name: str, inputs: Sequence[TensorSpec], *, batch_size: int) -> pb.ModelWarmup:
    warm_up = pb.ModelWarmup(name=name, batch_size=batch_size)
    for spec in inputs:
        warm_up.inputs[spec.name].CopyFrom(
            pb.ModelWarmup.Input(data_type=_data_type(spec), dims=spec.shape, zero_data=True)
        )
    return warm_up


def input_of(spec: TensorSpec) -> pb.ModelInput:
    """A tensor as a model's input."""
    return pb.ModelInput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def output_of(spec: TensorSpec) -> pb.ModelOutput:
    """A tensor as a model's output."""
    return pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=spec.shape)


def _data_type(spec: TensorSpec) -> int:
    return int(pb.DataType.Value(f"TYPE_{spec.type}"))


def _of_precision(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}_{precision}"


def _sized(name: str, image_size: int) -> str:
    return name if image_size == FULL_IMAGE_SIZE else f"{name}_{image_size}"

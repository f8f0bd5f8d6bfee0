"""Whether a model's file takes the tensors and batches that its configuration promises.

Asked for the platforms that run in NVIDIA's container: no server is here to refuse the configuration, and a profile
that is too small fails only with the first full batch. `onnx_files` reads what an ONNX graph says of itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from export.records import EngineRecord
from export.tensors import TensorSpec

SOURCE = "https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md"
UNBOUNDED = 1 << 30  # the largest batch of a graph whose batch is a variable


@dataclass(frozen=True)
class ModelFile:
    """What a model's file says of itself.

    Attributes:
        inputs, outputs: without the batch.
        min_batch, max_batch: images that it takes in a run.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    min_batch: int
    max_batch: int

    @classmethod
    def of_engine(cls, record: EngineRecord) -> ModelFile:
        """An engine as it was recorded when it was built; only its own kind of GPU could open it."""
        return cls(record.inputs, record.outputs, record.options.min_batch, record.options.max_batch)


def mismatches(config: pb.ModelConfig, file: ModelFile) -> list[str]:
    """Where a configuration and the file that it opens differ, a sentence each with Triton's rule."""
    return [f"{sentence} ({SOURCE})" for sentence in (*_tensors(config, file), *_batches(config, file))]


def _tensors(config: pb.ModelConfig, file: ModelFile) -> Iterator[str]:
    """Triton compares names, types and shapes with the file's."""
    for kind, tensors, specs in (
        ("input", config.input, file.inputs),
        ("output", config.output, file.outputs),
    ):
        configured, in_file = {spec_of(tensor) for tensor in tensors}, set(specs)
        for spec in sorted(configured - in_file, key=str):
            yield f"{kind} {spec} is not in the file"
        for spec in sorted(in_file - configured, key=str):
            yield f"the file's {kind} {spec} is not configured"


def _batches(config: pb.ModelConfig, file: ModelFile) -> Iterator[str]:
    """Triton sends every batch up to max_batch_size."""
    if file.min_batch > 1 or config.max_batch_size > file.max_batch:
        batches = f"{file.min_batch} to {file.max_batch}"
        remedy = (
            f"publish with --max-batch-size {file.max_batch} or less"
            if file.min_batch <= 1
            else "build it for batches from 1 on"
        )
        yield (
            f"batches of 1 to {config.max_batch_size} are configured, and the file takes {batches}: {remedy}"
        )


def spec_of(tensor: pb.ModelInput | pb.ModelOutput) -> TensorSpec:
    """A configured input or output."""
    data_type = str(pb.DataType.Name(tensor.data_type)).removeprefix("TYPE_")
    return TensorSpec(tensor.name, data_type, tuple(tensor.dims))

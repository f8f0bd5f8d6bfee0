"""What a manifest says of a file and of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from export.tensors import TensorSpec
from model_repository.category_names import is_safe_name, unsafe_name
from train.support.files import sha256_of

NO_BYTECODE = "__pycache__"  # an empty file of every version folder; see `export.releases.files`


def _safe(name: str) -> str:
    if not is_safe_name(name) and name != NO_BYTECODE:
        raise ValueError(unsafe_name(name))
    return name


# A name that a file brings, and that becomes a part of a path.
SafeName = Annotated[str, AfterValidator(_safe)]


class FileRecord(BaseModel, frozen=True, extra="forbid"):
    """Hash and size of a file of a build; a later change of the file is noticed by them."""

    sha256: str
    n_bytes: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """The record of a file as it is now."""
        return cls(sha256=sha256_of(path), n_bytes=path.stat().st_size)

    def describes(self, path: Path) -> bool:
        """Whether this is the record of a file as it is now; False too where there is no such file, or none to read."""
        try:
            return path.stat().st_size == self.n_bytes and sha256_of(path) == self.sha256
        except OSError:
            return False


class GraphPart(BaseModel, frozen=True, extra="forbid"):
    """A part of a graph for pictures of any size, which runs in strips; see `export.graphs.parts`.

    Attributes:
        file: beside the graph; the graph's own where it is not cut.
        inputs, outputs: names of its tensors.
        strip_step: pixels at whose multiples strips begin and end.
        strip_margin: pixels beside a strip from which it must be computed too.
        bytes_per_pixel: memory that a run takes for a pixel of the picture, as its largest operator needs it.
    """

    file: SafeName
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    strip_step: int = Field(ge=1)
    strip_margin: int = Field(ge=0)
    bytes_per_pixel: int = Field(ge=1)


class EngineOptions(BaseModel, frozen=True, extra="forbid"):
    """How an engine is built; two engines of the same graph, options, TensorRT and GPU are the same engine."""

    min_batch: int = Field(1, ge=1, description="Smallest batch that the engine takes, images")
    opt_batch: int = Field(4, ge=1, description="Batch that it is tuned for, images")
    max_batch: int = Field(8, ge=1, description="Largest batch, images")
    workspace_mib: int | None = Field(
        None, ge=1, description="Scratch memory a layer may take, MiB; None: all of the GPU's"
    )
    optimization_level: int = Field(3, ge=0, le=5, description="0 builds fastest, 5 searches longest")
    version_compatible: bool = Field(False, description="Loads in later TensorRTs of the same major version")
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = Field(
        "none", description="Other GPUs on which the engine loads"
    )

    @model_validator(mode="after")
    def _ordered(self) -> EngineOptions:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            raise ValueError(
                f"a profile of batches {self.min_batch}, {self.opt_batch}, {self.max_batch} is not in ascending order"
            )
        return self


class EngineRecord(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A TensorRT engine and how it was built; as a rule it loads on the same TensorRT and the same kind of GPU alone.

    Attributes:
        file: the engine's file.
        onnx_sha256: of the graph that it was built from.
        tensorrt: version of the TensorRT that built it.
        gpu: name of the GPU that it was built on.
        compute_capability: of that GPU, `8.9` say.
        image: the container image that it was built in; None outside a container.
        options: how it was built.
        inputs, outputs: its tensors, without the batch.
        seconds: how long the build took.
    """

    file: FileRecord
    onnx_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    image: str | None
    options: EngineOptions
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seconds: float

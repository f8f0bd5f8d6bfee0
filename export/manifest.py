"""manifest.json: what a build holds, what it was made from, and what the parity gate found."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from export.agreement import LIMITS, Agreement, Limits
from export.errors import ExportError
from export.tensors import TensorSpec
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.support.files import sha256_of, write_text

PRECISIONS = tuple(LIMITS)
FORMAT = "astmfr-build-1"
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "torch")


class FileRecord(BaseModel, frozen=True, extra="forbid"):
    """Hash and size of a file of a build; a later change of the file is noticed by them."""

    sha256: str
    n_bytes: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """The record of a file as it is now."""
        return cls(sha256=sha256_of(path), n_bytes=path.stat().st_size)


class Parity(BaseModel, frozen=True, extra="forbid"):
    """How far the graphs' distance maps are from the checkpoint's.

    Attributes:
        batch: images a run.
        max_difference: largest absolute difference over all stages and positions.
        mean_difference: mean absolute difference.
    """

    batch: int
    max_difference: float
    mean_difference: float


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


class EngineRecord(BaseModel, frozen=True, extra="forbid"):
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


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What manifest.json holds; a copy lies in every published version folder.

    Attributes:
        foreground_id: identifies the SAM that removes the background; 0 without SAM. Categories of one id share one.
        foreground_difference: share of pixels in which the masks of SAM's graph differ from PyTorch's, the largest.
        agreements: how far each judge is from PyTorch on the test set, as the parity gate measured it.
        limits: the limits that the agreements were held to.
        kept_in_float: convolutions that int8 left in float, with the change of the anomaly maps that each alone causes.
        tensorrt_verdict: the TensorRT that accepted both graphs at export, a sentence; None where none was asked.
        engines: TensorRT engines by graph, `teacher` and `student`; empty where none were built.
    """

    format: str
    category: str
    release_id: int
    teacher_id: int
    precision: str
    opset: int
    teacher_channels: tuple[int, int, int]
    checkpoint_sha256: str
    files: dict[str, FileRecord]
    parity: list[Parity]
    parity_images: str
    foreground_id: int = 0
    foreground_difference: float | None = None
    agreements: list[Agreement] = []
    limits: Limits | None = None
    kept_in_float: list[str] = []
    tensorrt_verdict: str | None = None
    engines: dict[str, EngineRecord] = {}
    config: FitConfig
    provenance: Provenance
    versions: dict[str, str]

    @property
    def refused(self) -> list[str]:
        """Each judge that the parity gate refused, and the limits that it exceeds."""
        return [
            f"{agreement.judge}: {'; '.join(agreement.beyond_limits)}"
            for agreement in self.agreements
            if not agreement.accepted
        ]

    @property
    def graph_hashes(self) -> dict[str, str]:
        """SHA-256 of teacher.onnx and student.onnx by name."""
        return {name: self.files[name].sha256 for name in ("teacher.onnx", "student.onnx")}

    @property
    def engine_hashes(self) -> dict[str, str]:
        """SHA-256 of teacher.plan and student.plan by name; empty without engines."""
        return {f"{name}.plan": record.file.sha256 for name, record in self.engines.items()}

    @property
    def engines_judged(self) -> bool:
        """Whether the parity gate has judged the test set with these engines."""
        return any(agreement.files == self.engine_hashes for agreement in self.agreements)

    def write(self, folder: Path) -> None:
        """Write manifest.json to a build's folder."""
        write_text(folder / "manifest.json", self.model_dump_json(indent=2) + "\n")


class GraphFiles(NamedTuple):
    """Paths of a category's two ONNX files."""

    teacher: Path
    student: Path

    @classmethod
    def in_folder(cls, folder: Path) -> GraphFiles:
        """The two files of a build in this folder."""
        return cls(folder / "teacher.onnx", folder / "student.onnx")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that write and verify graphs; another version may write other graphs."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def build_folder(build_dir: Path, category: str, precision: str) -> Path:
    """Folder of a build: build/<category>/ for float32, build/<category>/<precision>/ for the others."""
    folder = build_dir / category
    return folder if precision == "fp32" else folder / precision


def existing_builds(build_dir: Path, category: str) -> dict[str, Path]:
    """The folders of a category's builds by precision.

    Raises:
        ExportError: there is none.
    """
    folders = {precision: build_folder(build_dir, category, precision) for precision in PRECISIONS}
    existing = {key: folder for key, folder in folders.items() if (folder / "manifest.json").is_file()}
    if not existing:
        raise ExportError(f"{build_dir / category} holds no build; make one with `python -m export onnx`.")
    return existing


def read_manifest(folder: Path) -> Manifest:
    """Read a build's manifest and check the files of the build against it.

    Raises:
        ExportError: there is no build, its manifest cannot be read, or a file was changed after export.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise ExportError(f"{path} does not exist; make it with `python -m export onnx`.")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ExportError(f"{path} cannot be used ({error.error_count()} faults); export again.") from None
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file() or sha256_of(file) != record.sha256:
            raise ExportError(f"{file} is not the file that was verified; export again.")
    return manifest


def require_engines(folder: Path, manifest: Manifest) -> Mapping[str, EngineRecord]:
    """The engines of a build by graph, `teacher` and `student`; their files are checked.

    Raises:
        ExportError: an engine is missing, was built from another graph, or its file was changed.
    """
    remedy = f"build it with `python -m export engine --category {manifest.category} --precision {manifest.precision}`"
    for name in ("teacher", "student"):
        engine, file = manifest.engines.get(name), engine_path(folder, name)
        if engine is None:
            raise ExportError(f"{folder} holds no TensorRT engine of the {name}; {remedy}.")
        if engine.onnx_sha256 != manifest.files[f"{name}.onnx"].sha256:
            raise ExportError(f"{file} was built from another {name}.onnx; {remedy}.")
        if not file.is_file() or sha256_of(file) != engine.file.sha256:
            raise ExportError(f"{file} is not the engine that was built; {remedy}.")
    return manifest.engines


def engine_path(folder: Path, graph: str) -> Path:
    """Path of the engine of `teacher` or `student`."""
    return folder / f"{graph}.plan"

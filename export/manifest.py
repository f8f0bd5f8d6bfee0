"""manifest.json: what a build is and what it was made from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from export.agreement import LIMITS, Agreement, Limits
from export.engines.tensorrt_builder import EngineOptions
from export.errors import ExportError
from export.tensors import TensorSpec
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.support.files import sha256_of

PRECISIONS = tuple(LIMITS)
FORMAT = "astmfr-build-1"
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "torch")


class FileRecord(BaseModel):
    """A file of a build, by which a later change is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    n_bytes: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """What a file is now."""
        return cls(sha256=sha256_of(path), n_bytes=path.stat().st_size)


class Parity(BaseModel):
    """How far the graphs' distance maps are from the checkpoint's.

    Attributes:
        batch: images a run.
        max_difference: largest absolute difference over all stages and positions.
        mean_difference: mean absolute difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int
    max_difference: float
    mean_difference: float


class EngineRecord(BaseModel):
    """What an engine was built from, with and for; it runs on no other TensorRT and, as a rule, on no other GPU.

    Attributes:
        file: the engine.
        onnx_sha256: of the graph that it was built from.
        tensorrt: version that built it.
        gpu: name of the GPU it was built on.
        compute_capability: of that GPU, `8.9` say.
        image: the container image that it was built in, None outside of one.
        options: batches it takes, and all else that was chosen.
        inputs, outputs: without the batch.
        seconds: that the build took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class Manifest(BaseModel):
    """What a build is and what it was made from; stands beside every published model.

    Attributes:
        foreground_id: the SAM that removes the background, 0 without one; categories that agree share one model.
        foreground_difference: largest share of its masks' pixels in which its graph differs from PyTorch.
        agreements: what the parity gate found on the test set, of each judge that was asked.
        limits: what those were held to.
        kept_in_float: int8's sensitive convolutions, and how much each changes the anomaly maps alone.
        tensorrt_verdict: what took both graphs when they were exported, None where nobody was asked.
        engines: TensorRT's, of `teacher` and `student`, where they were built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        """What the parity gate found beyond its limits, a sentence for each judge."""
        return [
            f"{agreement.judge}: {'; '.join(agreement.beyond_limits)}"
            for agreement in self.agreements
            if not agreement.accepted
        ]


@dataclass(frozen=True)
class GraphFiles:
    """Where a category's two ONNX files lie."""

    teacher: Path
    student: Path

    @classmethod
    def in_folder(cls, folder: Path) -> GraphFiles:
        """Where a build keeps them."""
        return cls(teacher=folder / "teacher.onnx", student=folder / "student.onnx")


def library_versions() -> dict[str, str]:
    """What writes and verifies graphs here: another version may write others."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def build_folder(build_dir: Path, category: str, precision: str) -> Path:
    """Where a category's build in a precision lies: float32 in build/<category>/, others in a folder of it."""
    folder = build_dir / category
    return folder if precision == "fp32" else folder / precision


def existing_builds(build_dir: Path, category: str) -> dict[str, Path]:
    """The folders of a category's builds by precision.

    Raises:
        ExportError: there is none.
    """
    folders = {precision: build_folder(build_dir, category, precision) for precision in PRECISIONS}
    existing = {
        precision: folder for precision, folder in folders.items() if (folder / "manifest.json").is_file()
    }
    if not existing:
        raise ExportError(f"{build_dir / category} holds no build; make one with `python -m export onnx`.")
    return existing


def read_manifest(folder: Path) -> Manifest:
    """Read a build's manifest and check that its files are the ones that were verified.

    Raises:
        ExportError: no build, or a file that was changed after export.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise ExportError(f"{path} does not exist; make it with `python -m export onnx`.")
    try:
        manifest = Manifest.model_validate_json(path.read_text())
    except ValidationError as error:
        raise ExportError(f"{path} cannot be used ({error.error_count()} faults); export again.") from None
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file() or sha256_of(file) != record.sha256:
            raise ExportError(f"{file} is not the file that was verified; export again.")
    return manifest


def graph_hashes(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of teacher.onnx and student.onnx by name."""
    return {name: manifest.files[name].sha256 for name in ("teacher.onnx", "student.onnx")}


def engine_hashes(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of teacher.plan and student.plan by name; empty without engines."""
    return {f"{name}.plan": record.file.sha256 for name, record in manifest.engines.items()}


def require_engines(folder: Path, manifest: Manifest) -> Mapping[str, EngineRecord]:
    """The engines of a build, of teacher and student.

    Raises:
        ExportError: there are none, they are of other graphs, or a file was changed since it was built.
    """
    again = f"build it with `python -m export engine --category {manifest.category} --precision {manifest.precision}`"
    for name in ("teacher", "student"):
        engine, file = manifest.engines.get(name), engine_path(folder, name)
        if engine is None:
            raise ExportError(f"{folder} holds no TensorRT engine of the {name}; {again}.")
        if engine.onnx_sha256 != manifest.files[f"{name}.onnx"].sha256:
            raise ExportError(f"{file} was built from another {name}.onnx; {again}.")
        if not file.is_file() or sha256_of(file) != engine.file.sha256:
            raise ExportError(f"{file} is not the engine that was built; {again}.")
    return manifest.engines


def engine_path(folder: Path, graph: str) -> Path:
    """Where the engine of `teacher` or `student` lies."""
    return folder / f"{graph}.plan"

"""manifest.json: what a build holds, what it was made from, and what the parity gate found."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from export.agreement import LIMITS, Agreement, Limits
from export.errors import ExportError
from export.records import EngineRecord, FileRecord, GraphPart, SafeName
from model_repository.category_names import is_safe_name, unsafe_name
from model_repository.onnx_contents import OnnxError, require_plain
from train.checkpoint.provenance import Provenance
from train.config import FitConfig
from train.support.files import write_text

PRECISIONS = tuple(LIMITS)
FORMAT = "astmfr-build-1"
ALIGNMENT_FILE = "alignment.json"  # the reference picture, of builds whose pictures are aligned
REQUIRED_FILES = ("teacher.onnx", "student.onnx", "calibration.json")
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "torch")


class Parity(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How far the graphs' distance maps are from the checkpoint's.

    Attributes:
        batch: images a run.
        max_difference: largest absolute difference over all stages and positions.
        mean_difference: mean absolute difference.
    """

    batch: int
    max_difference: float
    mean_difference: float


class Manifest(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What manifest.json holds; a copy lies in every published version folder.

    Attributes:
        release_id: of weights, calibration and fusion code, as at the export.
        weights_id: of the weights, which the student's graph names; builds of before, which have none, are exported
            again.
        foreground_id: identifies the SAM that removes the background; 0 without SAM. Categories of one id share one.
        foreground_difference: share of pixels in which the masks of SAM's graph differ from PyTorch's, the largest.
        agreements: how far each judge is from PyTorch on the test set, as the parity gate measured it.
        limits: the limits that the agreements were held to.
        judged_fingerprint: of the images that an fp16 or int8 build was judged with; older manifests do not say.
        kept_in_float: convolutions that int8 left in float, with the change of the anomaly maps that each alone causes.
        tensorrt_verdict: the TensorRT that accepted both graphs at export, a sentence; None where none was asked.
        engines: TensorRT engines by graph, `teacher` and `student`; empty where none were built.
        parts: of builds for pictures that keep their own size, the parts in which `teacher` and `student` run; see
            `export.graphs.parts`. Those of before lack them.
        strip_margins: in their place in builds of before, which are served as they were published.
    """

    format: str
    category: SafeName
    release_id: int
    teacher_id: int
    precision: str
    opset: int
    teacher_channels: tuple[int, int, int]
    checkpoint_sha256: str
    files: dict[str, FileRecord]
    parity: list[Parity]
    parity_images: str
    weights_id: int = 0
    foreground_id: int = 0
    foreground_difference: float | None = None
    agreements: list[Agreement] = []
    limits: Limits | None = None
    judged_fingerprint: str | None = None
    kept_in_float: list[str] = []
    tensorrt_verdict: str | None = None
    engines: dict[str, EngineRecord] = {}
    parts: dict[str, list[GraphPart]] = Field({}, exclude_if=lambda parts: not parts)
    strip_margins: dict[str, int] = Field({}, exclude_if=lambda margins: not margins)
    config: FitConfig
    provenance: Provenance
    versions: dict[str, str]

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        for backbone in (self.config.teacher, self.config.student):
            if not is_safe_name(backbone):  # a model is named after it
                raise ValueError(unsafe_name(backbone))
        sam = ["foreground.onnx"] if self.config.foreground == "sam" else []
        aligned = [ALIGNMENT_FILE] if self.provenance.aligned else []
        parts = {part.file for graph in self.parts.values() for part in graph}
        expected = sorted({*REQUIRED_FILES, *sam, *aligned, *parts})
        if sorted(self.files) != expected:
            raise ValueError(
                f"it lists the files {', '.join(sorted(self.files))}; expected {', '.join(expected)}"
            )
        return self

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
        write_text(folder / "manifest.json", self.to_json())

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return self.model_dump_json(indent=2) + "\n"


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


def find_build(build_dir: Path, category: str, precision: str) -> Path:
    """Folder of a build that is this category's in this precision, and not another's that was moved there.

    Raises:
        ExportError: there is no build, its manifest cannot be read, or it is another's.
    """
    folder = build_folder(build_dir, category, precision)
    manifest = parse_manifest(folder / "manifest.json")
    if (manifest.category, manifest.precision) != (category, precision):
        own = build_folder(build_dir, manifest.category, manifest.precision)
        raise ExportError(
            f"{folder} holds the build of category {manifest.category!r} in {manifest.precision}; expected "
            f"{category!r} in {precision}; a build is not renamed with its folder: move it back to {own}, or export "
            f"{category!r} again."
        )
    return folder


def existing_builds(build_dir: Path, category: str) -> dict[str, Path]:
    """The folders of a category's builds by precision.

    Raises:
        ExportError: there is none, or see `find_build`.
    """
    folders = {
        precision: find_build(build_dir, category, precision)
        for precision in PRECISIONS
        if (build_folder(build_dir, category, precision) / "manifest.json").is_file()
    }
    if not folders:
        raise ExportError(f"{build_dir / category} holds no build; make one with `python -m export onnx`.")
    return folders


def parse_manifest(path: Path) -> Manifest:
    """A manifest.json, without a look at the files that it lists.

    Raises:
        ExportError: there is none, or it cannot be read as a manifest.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(f"{path} does not exist; make it with `python -m export onnx`.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error}); export again.") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ").replace("\n", " ")
        raise ExportError(
            f"{path} cannot be used ({error.error_count()} faults); export again (first fault: {fault})."
        ) from None
    if manifest.format != FORMAT:
        raise ExportError(f"{path} has format {manifest.format!r}; expected {FORMAT!r}; export again.")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a build's manifest and check the files of the build against it.

    Raises:
        ExportError: there is no build, its manifest cannot be read, a file was changed after export, or a graph has
            weights in other files or operators that are not ONNX's own.
    """
    manifest = parse_manifest(folder / "manifest.json")
    for name, record in manifest.files.items():
        if not record.describes(folder / name):
            raise ExportError(f"{folder / name} is not the file that was verified; export again.")
        if name.endswith(".onnx"):
            try:
                require_plain(folder / name)
            except OnnxError as error:
                raise ExportError(f"{folder / name} {error}; export again.") from None
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
        if not engine.file.describes(file):
            raise ExportError(f"{file} is not the engine that was built; {remedy}.")
    return manifest.engines


def engine_path(folder: Path, graph: str) -> Path:
    """Path of the engine of `teacher` or `student`."""
    return folder / f"{graph}.plan"

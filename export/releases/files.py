"""The files of a release: version folders and configurations, written as changes of the repository.

A version folder never changes. In each lies an empty file `__pycache__`: the Python backend's stub, whose interpreter
reads no environment variables, would make a folder of that name, and Triton would take the model for a changed one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import Manifest, engine_path
from export.records import NO_BYTECODE, EngineRecord, FileRecord
from export.releases.changes import Changes
from export.releases.repository import CONFIG, Repository
from export.releases.store import FOLDER
from export.serving.ensembles import ensemble_config
from export.serving.native_pictures import part_names, parts_json
from export.serving.steps import FULL_IMAGE_SIZE, foreground_config, image_decoder_config, to_text
from export.tensors import DISTANCES, RELEASE_ID, TensorSpec
from model_repository import onnx_contents as contents_check
from model_repository import picture_strips

# The files of a version of each step that is code, by where they lie in the folder of the project's own.
CODE = {
    "distance_fusion": {
        "model.py": "1/model.py",
        "map_fusion.py": "map_fusion.py",
        "fusion_matrices.py": "fusion_matrices.py",
        "fusion_calibration.py": "fusion_calibration.py",
        "fusion_regions.py": "fusion_regions.py",
        "fusion_shown.py": "fusion_shown.py",
        "verdict_metrics.py": "verdict_metrics.py",
    },
    "image_decoder": {
        "model.py": "1/model.py",
        "image_decoding.py": "image_decoding.py",
        "deep_pixels.py": "deep_pixels.py",
        "jpeg_scans.py": "jpeg_scans.py",
        "picture_limits.py": "picture_limits.py",
        "resizing.py": "resizing.py",
        "whole_pictures.py": "whole_pictures.py",
    },
    "foreground": {"model.py": "1/model.py", "foreground_mask.py": "foreground_mask.py"},
    "alignment": {
        "model.py": "1/model.py",
        "picture_alignment.py": "picture_alignment.py",
        "reference_picture.py": "reference_picture.py",
    },
}
BACKEND = "onnxruntime_model"
ONNX_CONTENTS = "onnx_contents.py"  # beside the backend, which looks at the graph with it before it opens it
WARM_UP = "warmup/encoded_image"  # of the decoder; in the model's folder, where Triton wants it


@dataclass(frozen=True)
class VersionFiles:
    """What a version folder of a backbone holds: a graph, this project's Python backend, and an engine where one runs.

    Attributes:
        graph: which of the build's: `teacher`, `student` or `foreground`.
        build: the build's folder.
        manifest: of the build.
        engine: of the graph; None where the graph itself runs.
    """

    graph: str
    build: Path
    manifest: Manifest
    engine: EngineRecord | None

    @property
    def record(self) -> FileRecord:
        """Of the graph."""
        return self.manifest.files[f"{self.graph}.onnx"]

    def write(self, folder: Path) -> None:
        """Fill a new version folder."""
        for name, file in self._graphs().items():
            shutil.copyfile(self.build / file, folder / name)
        for name, content in self._code().items():
            (folder / name).write_bytes(content)
        if self.engine is not None:
            shutil.copyfile(engine_path(self.build, self.graph), folder / "model.plan")
        (folder / "manifest.json").write_bytes(self.manifest.to_json().encode())
        (folder / NO_BYTECODE).write_bytes(b"")

    def _graphs(self) -> dict[str, str]:
        """ONNX files of the build by their names in a version folder: the graph, and the parts in which it runs."""
        return {"model.onnx": f"{self.graph}.onnx"} | part_names(self.manifest, self.graph)

    def _code(self) -> dict[str, bytes]:
        """The Python backend, and what it is told of the parts."""
        if not self.manifest.config.is_native:
            return backend_files(native=False)
        return backend_files(native=True) | {"parts.json": parts_json(self.manifest, self.graph)}

    def records(self, folder: Path) -> dict[str, FileRecord]:
        """Hash and size of each file of a version that holds these files."""
        known = {name: self.manifest.files[file] for name, file in self._graphs().items()}
        if self.engine is not None:
            known["model.plan"] = self.engine.file
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        return {name: known.get(name) or FileRecord.of(folder / name) for name in names}

    def are_in(self, target: Repository, model: str, version: int) -> bool:
        """Whether a version holds these very files: what the parity gate judged is what is served.

        Weights that agree are not enough: another release of torch writes another graph of them, and TensorRT chooses
        by timings.
        """
        published, folder = target.read_manifest(model, version), target.folder(model, version)
        if published.files.get(f"{self.graph}.onnx") != self.record:
            return False
        ids = {"student": "weights_id", "foreground": "foreground_id"}
        if (name := ids.get(self.graph)) and getattr(published, name) != getattr(self.manifest, name):
            return False
        return (
            all(self.manifest.files[file].describes(folder / name) for name, file in self._graphs().items())
            and all(
                target.has_file(model, version, name) and (folder / name).read_bytes() == content
                for name, content in self._code().items()
            )
            and target.has_file(model, version, NO_BYTECODE)
            and (self.engine is None or self.engine.file.describes(folder / "model.plan"))
        )


@dataclass(frozen=True)
class AddedVersion:
    """A version of a model, and hash and size of each of its files."""

    model: str
    number: int
    files: dict[str, FileRecord]


def add_version(target: Repository, model: str, files: VersionFiles, changes: Changes) -> AddedVersion:
    """The newest version of a model that holds these files; added if there is none."""
    versions = target.versions(model)
    for version in reversed(versions):
        if files.are_in(target, model, version):
            return AddedVersion(model, version, files.records(target.folder(model, version)))
    added = max(versions, default=0) + 1
    folder = changes.folder(target.folder(model, added))
    files.write(folder)
    return AddedVersion(model, added, files.records(folder))


def read_code(target: Repository, committed: str) -> dict[str, bytes]:
    """The files of a version of a step that is code, as the repository holds the project's own.

    Raises:
        PublishError: the repository lacks one.
    """
    source = target.root / committed
    if missing := [part for part in CODE[committed].values() if not (source / part).is_file()]:
        raise PublishError(
            f"{target.root} holds no {committed} backend; expected the project's model_repository/, with its "
            f"{committed}/{missing[0]}."
        )
    return {name: (source / part).read_bytes() for name, part in CODE[committed].items()} | {NO_BYTECODE: b""}


def add_code(
    target: Repository,
    model: str,
    committed: str,
    changes: Changes,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> AddedVersion:
    """The newest version of a step that holds today's code, and what lies `beside` it; added if there is none.

    Raises:
        PublishError: the repository lacks the project's own code.
    """
    code, versions = {**read_code(target, committed), **beside}, target.versions(model)
    if committed == "image_decoder":
        changes.write(target.root / model / WARM_UP, (target.root / committed / WARM_UP).read_bytes())
    files = {name: _record_of(content) for name, content in code.items()}
    for version in reversed(versions):
        if _holds(target.folder(model, version), code):
            return AddedVersion(model, version, files)
    added = max(versions, default=0) + 1
    folder = changes.folder(target.folder(model, added))
    for name, content in code.items():
        (folder / name).write_bytes(content)
    return AddedVersion(model, added, files)


def _record_of(content: bytes) -> FileRecord:
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content))


def _holds(folder: Path, code: Mapping[str, bytes]) -> bool:
    """Whether a folder holds these files and no others."""
    there = {path.name: path for path in folder.iterdir()}
    return there.keys() == code.keys() and all(
        path.is_file() and path.read_bytes() == code[name] for name, path in there.items()
    )


def write_config(target: Repository, config: pb.ModelConfig, changes: Changes) -> bool:
    """Write a model's config.pbtxt; False when it was the same already."""
    folder = target.root / config.name
    if config.platform == "ensemble" and not (folder / "1").is_dir():
        changes.folder(folder / "1")  # Triton wants a version folder, even an empty one
    return changes.write(folder / CONFIG, to_text(config).encode())


def idle_configs(target: Repository, configs: Mapping[str, pb.ModelConfig]) -> list[pb.ModelConfig]:
    """What lets a server that loads every folder of the repository, as `deploy`'s does not, find a model in each.

    Without one it ends at once. The folder of the records is an ensemble over the fusion that nobody asks, and so is
    the project's own alignment, which has no reference picture; decoder and foreground of the project that no release
    uses are configured for images of the paper's size.

    Args:
        target: the repository.
        configs: of the steps that releases use, by model.
    """
    step = pb.ModelEnsembling.Step(
        model_name="distance_fusion",
        model_version=-1,
        input_map={name: name for name in (*DISTANCES, RELEASE_ID.name)},
        output_map={"pred_score": "pred_score"},
    )

    def of(folder: str) -> pb.ModelConfig:
        return ensemble_config(
            folder,
            inputs=[*(TensorSpec(name, "FP32", (-1, -1)) for name in DISTANCES), RELEASE_ID],
            outputs=[TensorSpec("pred_score", "FP32", (1,))],
            steps=[step],
            parameters={},
            max_batch_size=1,
        )

    return [
        of(FOLDER),
        *(
            config
            for config in (
                image_decoder_config(FULL_IMAGE_SIZE),
                foreground_config(FULL_IMAGE_SIZE),
                of("alignment"),
            )
            if config.name not in configs and target.has_file(config.name, 1, "model.py")
        ),
    ]


def write_idle(target: Repository, configs: Mapping[str, pb.ModelConfig], changes: Changes) -> None:
    """Write `idle_configs` where they are not there yet."""
    for config in idle_configs(target, configs):
        write_config(target, config, changes)


def backend_files(*, native: bool) -> dict[str, bytes]:
    """The Python backend that runs a graph where the server has no ONNX Runtime of its own, and what lies beside it.

    Args:
        native: for pictures that keep their own size; that backend is made from the usual one.
    """
    backends = resources.files("export.serving.backends")
    usual = backends.joinpath(f"{BACKEND}.py").read_bytes()
    contents = Path(contents_check.__file__).read_bytes()
    if not native:
        return {"model.py": usual, ONNX_CONTENTS: contents}
    return {
        "model.py": backends.joinpath("native_model.py").read_bytes(),
        f"{BACKEND}.py": usual,
        ONNX_CONTENTS: contents,
        "picture_strips.py": Path(picture_strips.__file__).read_bytes(),
    }

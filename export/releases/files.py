"""The files of a release: version folders, Python steps and configurations, written as changes of the repository."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import Manifest, engine_path
from export.records import EngineRecord, FileRecord
from export.releases.changes import Changes
from export.releases.repository import CONFIG, Repository
from export.serving.steps import to_text


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
        shutil.copyfile(self.build / f"{self.graph}.onnx", folder / "model.onnx")
        (folder / "model.py").write_bytes(backend())
        if self.engine is not None:
            shutil.copyfile(engine_path(self.build, self.graph), folder / "model.plan")
        (folder / "manifest.json").write_bytes(self.manifest.to_json().encode())

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
            self.record.describes(folder / "model.onnx")
            and target.has_file(model, version, "model.py")
            and (folder / "model.py").read_bytes() == backend()
            and (self.engine is None or self.engine.file.describes(folder / "model.plan"))
        )


def add_version(target: Repository, model: str, files: VersionFiles, changes: Changes) -> int:
    """The newest version of a model that holds these files; added if there is none."""
    versions = target.versions(model)
    for version in reversed(versions):
        if files.are_in(target, model, version):
            return version
    added = max(versions, default=0) + 1
    files.write(changes.folder(target.folder(model, added)))
    return added


def write_config(target: Repository, config: pb.ModelConfig, changes: Changes) -> bool:
    """Write a model's config.pbtxt; False when it was the same already."""
    folder = target.root / config.name
    if config.platform == "ensemble" and not (folder / "1").is_dir():
        changes.folder(folder / "1")  # Triton wants a version folder, even an empty one
    return changes.write(folder / CONFIG, to_text(config).encode())


def write_sibling(
    target: Repository, committed: str, config: pb.ModelConfig, parts: Sequence[str], changes: Changes
) -> bool:
    """Copy the files `parts` of a committed backend to the folder of another image size, which `config` names.

    Returns:
        Whether a file or the configuration changed.

    Raises:
        PublishError: the repository lacks the committed backend.
    """
    source, folder = target.root / committed, target.root / config.name
    if missing := [part for part in parts if not (source / part).is_file()]:
        raise PublishError(
            f"{target.root} holds no {committed} backend; expected the project's model_repository/, with its "
            f"{committed}/{missing[0]}."
        )
    changed = [changes.write(folder / part, (source / part).read_bytes()) for part in parts]
    return any([*changed, write_config(target, config, changes)])


def backend() -> bytes:
    """The Python backend that runs a graph where the server has no ONNX Runtime of its own."""
    return resources.files("export.serving.backends").joinpath("onnxruntime_model.py").read_bytes()

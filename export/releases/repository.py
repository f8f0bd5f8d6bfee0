"""A Triton model repository on disk: the versions and configurations in it, and how they are written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.manifest import Manifest, engine_path
from export.serving.queues import LatencyBudget
from export.serving.steps import to_text
from train.support.files import write_text


@dataclass(frozen=True)
class Repository:
    """A model repository on disk."""

    root: Path

    def versions(self, model: str) -> list[int]:
        """Version numbers of a model, ascending."""
        folder = self.root / model
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())

    def find_version(self, model: str, matches: Callable[[Manifest], bool]) -> int | None:
        """The newest version whose manifest `matches` accepts; None where there is none."""
        for version in reversed(self.versions(model)):
            if self.has_file(model, version, "manifest.json") and matches(self.read_manifest(model, version)):
                return version
        return None

    def read_manifest(self, model: str, version: int) -> Manifest:
        """The manifest of the build that a version came from."""
        return Manifest.model_validate_json(
            (self.root / model / str(version) / "manifest.json").read_text(encoding="utf-8")
        )

    def has_file(self, model: str, version: int, name: str) -> bool:
        """Whether a version folder holds a file of this name."""
        return (self.root / model / str(version) / name).is_file()

    def ensembles_over(self, model: str) -> list[pb.ModelConfig]:
        """The ensembles that have a model as a step, in the order of their names."""
        configured = (self.read_config(folder.name) for folder in sorted(self.root.iterdir()))
        return [config for config in configured if config is not None and pinned_versions(config, model)]

    def budgets_over(self, model: str, *, but: Collection[str]) -> list[LatencyBudget]:
        """Latency budgets of the ensembles that have a model as a step, without the ensembles named in `but`."""
        budgets = (
            LatencyBudget.from_parameters(parameters_of(ensemble))
            for ensemble in self.ensembles_over(model)
            if ensemble.name not in but
        )
        return [budget for budget in budgets if budget is not None]

    def read_config(self, model: str) -> pb.ModelConfig | None:
        """A model's configuration, or None where it has none."""
        path = self.root / model / "config.pbtxt"
        return (
            text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig()) if path.is_file() else None
        )

    def write_config(self, config: pb.ModelConfig) -> bool:
        """Write a model's config.pbtxt by one rename; False when it was the same already."""
        folder = self.root / config.name
        if config.platform == "ensemble":
            # Triton wants a version folder, even an empty one.
            (folder / "1").mkdir(parents=True, exist_ok=True)
        return _write_changed(folder / "config.pbtxt", to_text(config))

    def write_calibration(self, release_id: int, source: Path) -> None:
        """Copy a release's calibration to where the fusion reads it."""
        folder = self.root / "distance_fusion" / "calibrations"
        _write_changed(folder / f"{release_id}.json", source.read_text(encoding="utf-8"))

    @contextmanager
    def staged(self, target: Path) -> Iterator[Path]:
        """A folder beside the repository to write to; it is renamed to `target` at the end."""
        staging = Path(tempfile.mkdtemp(dir=self.root.resolve().parent, prefix=".publish-"))
        try:
            folder = staging / target.name
            folder.mkdir()
            yield folder
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        finally:
            shutil.rmtree(staging)

    def add_version(
        self,
        model: str,
        graph: str,
        build: Path,
        manifest: Manifest,
        *,
        with_engine: bool,
        same: Callable[[Manifest], bool],
    ) -> int:
        """The version that holds a build's graph and this project's Python backend; added if there is none.

        Args:
            with_engine: whether the version needs the graph's engine too, as model.plan.
            same: whether a version with this manifest is the same model.
        """
        backend = (
            resources.files("export.serving.backends")
            .joinpath("onnxruntime_model.py")
            .read_text(encoding="utf-8")
        )
        existing = self.find_version(model, same)
        if (
            existing is not None
            and (self.root / model / str(existing) / "model.py").read_text(encoding="utf-8") == backend
            and (not with_engine or self.has_file(model, existing, "model.plan"))
        ):
            return existing
        version = max(self.versions(model), default=0) + 1
        with self.staged(self.root / model / str(version)) as folder:
            shutil.copyfile(build / f"{graph}.onnx", folder / "model.onnx")
            (folder / "model.py").write_text(backend, encoding="utf-8")
            if with_engine:
                shutil.copyfile(engine_path(build, graph), folder / "model.plan")
            manifest.write(folder)
        return version

    def publish_sibling(self, committed: str, config: pb.ModelConfig, parts: Sequence[str]) -> None:
        """Copy the files `parts` of a committed backend to the folder of another image size, which `config` names.

        Raises:
            PublishError: the repository lacks the committed backend.
        """
        source, folder = self.root / committed, self.root / config.name
        if not source.is_dir():
            raise PublishError(
                f"{self.root} holds no {committed} backend; expected the project's model_repository/."
            )
        for part in parts:
            if not (folder / part).is_file() or (folder / part).read_bytes() != (source / part).read_bytes():
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / part, folder / part)
        self.write_config(config)


def pinned_versions(ensemble: pb.ModelConfig, model: str) -> list[int]:
    """The versions of a model that an ensemble's steps name; none of a model that is no ensemble."""
    steps = ensemble.ensemble_scheduling.step
    return [step.model_version for step in steps if step.model_name == model]


def parameters_of(config: pb.ModelConfig) -> dict[str, str]:
    """The parameters of a configuration by name."""
    return {name: str(value.string_value) for name, value in config.parameters.items()}


def _write_changed(path: Path, text: str) -> bool:
    """Write a file by one rename, unless it holds this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True

"""A Triton model repository on disk: versions, configurations, and what ensembles are pinned to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import model_configs as configs
from export.manifest import Manifest
from train.files import write_text


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
        """The newest version of a model whose manifest `matches` accepts."""
        for version in reversed(self.versions(model)):
            path = self.root / model / str(version) / "manifest.json"
            if path.is_file() and matches(Manifest.model_validate_json(path.read_text())):
                return version
        return None

    def has_file(self, model: str, version: int, name: str) -> bool:
        """Whether a version holds this file."""
        return (self.root / model / str(version) / name).is_file()

    def ensembles_over(self, model: str) -> list[pb.ModelConfig]:
        """The ensembles that a model is a step of, by name."""
        configured = (self.read_config(folder.name) for folder in sorted(self.root.iterdir()))
        return [config for config in configured if config is not None and pinned_versions(config, model)]

    def read_config(self, model: str) -> pb.ModelConfig | None:
        """A model's configuration, or None where it has none."""
        path = self.root / model / "config.pbtxt"
        return text_format.Parse(path.read_text(), pb.ModelConfig()) if path.is_file() else None

    def write_config(self, config: pb.ModelConfig) -> bool:
        """Write a model's config.pbtxt by one rename; False when it stood there already."""
        path = self.root / config.name / "config.pbtxt"
        text = configs.to_text(config)
        if path.is_file() and path.read_text() == text:
            return False
        if config.platform == "ensemble":
            (path.parent / "1").mkdir(parents=True, exist_ok=True)  # Triton wants a version folder, if empty
        write_text(path, text)
        return True

    @contextmanager
    def staged(self, target: Path) -> Iterator[Path]:
        """Fill a folder beside the repository, then rename it to `target` in it."""
        staging = Path(tempfile.mkdtemp(dir=self.root.resolve().parent, prefix=".publish-"))
        try:
            folder = staging / target.name
            folder.mkdir()
            yield folder
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        finally:
            shutil.rmtree(staging)


def pinned_versions(ensemble: pb.ModelConfig, model: str) -> list[int]:
    """The versions of a model that an ensemble is pinned to; of any other configuration, none."""
    steps = ensemble.ensemble_scheduling.step
    return [step.model_version for step in steps if step.model_name == model]

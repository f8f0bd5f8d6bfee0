"""A Triton model repository on disk: what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError, PublishError
from export.manifest import Manifest, parse_manifest

CONFIG = "config.pbtxt"
REMEDY = "repair it, move its folder away, or publish into another repository with --repository"


@dataclass(frozen=True)
class Repository:
    """A model repository on disk.

    Raises:
        PublishError: by every method that reads: a file cannot be read, or is not what it should be.
    """

    root: Path

    def versions(self, model: str) -> list[int]:
        """Version numbers of a model, ascending."""
        folder = self.root / model
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())

    def folder(self, model: str, version: int) -> Path:
        """The folder of a version."""
        return self.root / model / str(version)

    def read_manifest(self, model: str, version: int) -> Manifest:
        """The manifest of the build that a version came from."""
        path = self.folder(model, version) / "manifest.json"
        try:
            return parse_manifest(path)
        except ExportError as error:
            raise PublishError(
                f"{error.message.partition(';')[0]}, and publishing needs it; {REMEDY}."
            ) from None

    def has_file(self, model: str, version: int, name: str) -> bool:
        """Whether a version folder holds a file of this name."""
        return (self.folder(model, version) / name).is_file()

    def ensembles(self) -> list[pb.ModelConfig]:
        """All ensembles, in the order of their names."""
        models = (path.parent.name for path in sorted(self.root.glob(f"*/{CONFIG}")))
        configured = (self.read_config(name) for name in models if not name.startswith("."))
        return [config for config in configured if config is not None and config.platform == "ensemble"]

    def ensembles_over(self, model: str) -> list[pb.ModelConfig]:
        """The ensembles that have a model as a step, in the order of their names."""
        return [config for config in self.ensembles() if pinned_versions(config, model)]

    def pool_threads(self) -> int:
        """The most threads that a model on ONNX Runtime's backend states; 0 for none. `deploy` reads it too."""
        models = (path.parent.name for path in sorted(self.root.glob(f"*/{CONFIG}")))
        configured = (self.read_config(name) for name in models if not name.startswith("."))
        stated = [
            parameters_of(config).get("intra_op_thread_count", "")
            for config in configured
            if config is not None and config.backend == "onnxruntime"
        ]
        return max((int(threads) for threads in stated if threads.isdecimal()), default=0)

    def read_config(self, model: str) -> pb.ModelConfig | None:
        """A model's configuration, or None where it has none."""
        path = self.root / model / CONFIG
        if not path.is_file():
            return None
        try:
            config: pb.ModelConfig = text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            reason = " ".join(str(error).split())
            raise PublishError(
                f"{path} cannot be read as a model's configuration ({reason}); {REMEDY}."
            ) from None
        if config.name not in ("", model):
            raise PublishError(f"{path} is the configuration of {config.name}, not of {model}; {REMEDY}.")
        config.name = model
        return config


def pinned_versions(ensemble: pb.ModelConfig, model: str) -> list[int]:
    """The versions of a model that an ensemble's steps name; none of a model that is no ensemble."""
    steps = ensemble.ensemble_scheduling.step
    return [step.model_version for step in steps if step.model_name == model]


def parameters_of(config: pb.ModelConfig) -> dict[str, str]:
    """The parameters of a configuration by name."""
    return {name: str(value.string_value) for name, value in config.parameters.items()}

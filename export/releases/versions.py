"""Which versions of a shared or published model a server can load, and which of them it is to load."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer, misfit
from export.errors import PublishError
from export.manifest import Manifest
from export.releases.repository import Repository, parameters_of, pinned_versions
from export.serving.backbones import Platform
from export.serving.steps import student_name
from model_repository.image_size import size_text

ONE_WAY = "a repository serves a model one way: publish into another one with --repository, all of its categories alike"


@dataclass(frozen=True)
class ModelVersions:
    """The versions of one model of a repository, for the server that is to load them.

    Attributes:
        target: the repository.
        model: the model's folder.
        graph: what it runs: `teacher`, `student` or `foreground`.
        manifest: of the build that is published. All versions that a server loads take and give tensors of one shape.
        platform: what runs it.
        server: what loads TensorRT's engines; None where that is not known, and then no engine is held to it.
    """

    target: Repository
    model: str
    graph: str
    manifest: Manifest
    platform: Platform
    server: TargetServer | None

    def require_shared(self, *, but: Collection[str]) -> None:
        """Ensembles of other categories over this model still find their version, platform and batch size.

        Args:
            but: the ensembles that are published now.

        Raises:
            PublishError: one does not; the sentence names it.
        """
        config, wanted = self.target.read_config(self.model), self.platform.max_batch_size
        for ensemble in self._others(but):
            for version in pinned_versions(ensemble, self.model):
                if reason := self.unservable(version):
                    raise PublishError(
                        f"{ensemble.name} is served over {self.model} {version}, which {reason}; {ONE_WAY}."
                    )
            if config is not None and (served := platform_of(config)) != (asked := name_of(self.platform)):
                raise PublishError(
                    f"{ensemble.name} is served over {self.model} on platform {served}, and {asked} was asked for; "
                    f"{ONE_WAY}."
                )
            if ensemble.max_batch_size > wanted:
                raise PublishError(
                    f"{ensemble.name} is served over {self.model} in batches of up to {ensemble.max_batch_size}, and "
                    f"{wanted} were asked for; give --max-batch-size {ensemble.max_batch_size} or more, "
                    f"or publish {ensemble.name} with less first."
                )

    def _others(self, but: Collection[str]) -> list[pb.ModelConfig]:
        return [ensemble for ensemble in self.target.ensembles_over(self.model) if ensemble.name not in but]

    def remarks(self, config: pb.ModelConfig, *, but: Collection[str]) -> list[str | None]:
        """What a new configuration changes; see `effect_on_others` and `left_out`."""
        return [
            self.effect_on_others(config, but=but),
            self.left_out(config.version_policy.specific.versions),
        ]

    def effect_on_others(self, config: pb.ModelConfig, *, but: Collection[str]) -> str | None:
        """What a new configuration changes for the other ensembles over this model, in a sentence; None for nothing.

        Args:
            config: what is published.
            but: the ensembles that are published now.
        """
        others, before = self._others(but), self.target.read_config(self.model)
        if not others or before is None:
            return None
        changes = [
            f"{what} ({old} before)"
            for what, old, new in (
                (f"{_instances(config)} instances", _instances(before), _instances(config)),
                (f"{_threads(config)} threads", _threads(before), _threads(config)),
            )
            if old != new
        ]
        if not changes:
            return None
        return f"{self.model}, which {others[0].name} is served over too, now has {' and '.join(changes)}"

    def unservable(self, version: int) -> str | None:
        """Why the server cannot load a version; None where it can."""
        if not self.target.has_file(self.model, version, self.platform.file_name):
            return f"has no {self.platform.file_name}"
        manifest = self.target.read_manifest(self.model, version)
        if (there := tensors_of(manifest, self.graph)) != (wanted := tensors_of(self.manifest, self.graph)):
            return f"is for {there}, and what is published now for {wanted}"
        if self.platform.name != "tensorrt":
            return None
        engine = manifest.engines.get(self.graph)
        if engine is None:
            return "has an engine that its manifest does not know"
        largest, asked_for = engine.options.max_batch, self.platform.max_batch_size
        if largest < asked_for:
            return f"takes batches of up to {largest} (--max-batch-size {largest}), not of {asked_for}"
        reason = misfit("its engine", engine, self.server) if self.server is not None else None
        return reason and f"this server cannot load: {reason}"

    def left_out(self, loaded: Collection[int]) -> str | None:
        """That a version which was live until now is not loaded any more, and why; None where none is."""
        reasons = {version: self.unservable(version) for version in self._pinned() if version not in loaded}
        remarks = [
            f"{self.model} {version}, served before, is no longer loaded: it {reason}"
            for version, reason in sorted(reasons.items())
            if reason
        ]
        return "; ".join(remarks) or None

    def _pinned(self) -> set[int]:
        """The versions that ensembles are pinned to until now."""
        return {
            version
            for ensemble in self.target.ensembles_over(self.model)
            for version in pinned_versions(ensemble, self.model)
        }


def tensors_of(manifest: Manifest, graph: str) -> str:
    """In words, what sets the shapes of a version's tensors besides the model's name."""
    images = f"images of {size_text(manifest.config.image_size)} pixels"
    if graph == "foreground":  # whatever the teacher: categories of several share it
        return images
    return f"{images} and a teacher of {', '.join(map(str, manifest.teacher_channels))} channels"


def student_model(target: Repository, manifest: Manifest) -> str:
    """The model that a build's student becomes a version of.

    All versions of a model take and give tensors of one shape. A student of another image size, or over a teacher of
    other channels, is a model of its own, so that it can be loaded beside the one that is live.
    """
    name = student_name(manifest.category, precision=manifest.precision)
    sized, number, model = f"{name}_{size_text(manifest.config.image_size)}", 1, name
    while versions := target.versions(model):
        if not target.has_file(model, versions[-1], "manifest.json"):
            break  # something else has this name: for `ownership` to tell
        there = target.read_manifest(model, versions[-1])
        if tensors_of(there, "student") == tensors_of(manifest, "student"):
            break
        model, number = (sized if number == 1 else f"{sized}_{number}"), number + 1
    return model


def platform_of(config: pb.ModelConfig) -> str:
    """What a published configuration runs its model on, as `name_of` calls it."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return _named(config.backend, accelerators[0].name if accelerators else "cpu")


def name_of(platform: Platform) -> str:
    """A platform by its name, `onnxruntime` with its provider."""
    return _named(platform.name, platform.provider)


def _named(backend: str, provider: str) -> str:
    return f"onnxruntime ({provider})" if backend == "onnxruntime" else backend


def _instances(config: pb.ModelConfig) -> int:
    return sum(group.count for group in config.instance_group)


def _threads(config: pb.ModelConfig) -> str:
    """As many as were stated; of ONNX Runtime's pool as many as the server has cores unless they were."""
    return parameters_of(config).get("intra_op_thread_count", "all")

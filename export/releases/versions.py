"""Which versions of a shared or published model a server can load, and which of them it is to load."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from export.engines.target import TargetServer, misfit
from export.errors import PublishError
from export.releases.repository import Repository, pinned_versions
from export.serving.backbones import Platform

LOADED_VERSIONS = 2  # of a model: the live one and the one before, to roll back to


@dataclass(frozen=True)
class ModelVersions:
    """The versions of one model of a repository, for the server that is to load them.

    Attributes:
        target: the repository.
        model: the model's folder.
        graph: what it runs: `teacher`, `student` or `foreground`.
        platform: what runs it.
        server: what loads TensorRT's engines.
    """

    target: Repository
    model: str
    graph: str
    platform: Platform
    server: TargetServer

    def require_shared(self, *, but: Collection[str]) -> None:
        """Ensembles of other categories over this model still find their version and their batch size.

        Args:
            but: the ensembles that are published now.

        Raises:
            PublishError: one does not; the sentence names it.
        """
        wanted = self.platform.max_batch_size
        for ensemble in self.target.ensembles_over(self.model):
            if ensemble.name in but:
                continue
            for version in pinned_versions(ensemble, self.model):
                if reason := self.unservable(version):
                    raise PublishError(
                        f"{ensemble.name} is served over {self.model} {version}, which {reason}; a repository serves a "
                        f"model one way: publish into another one with --repository, or {ensemble.name} too."
                    )
            if ensemble.max_batch_size > wanted:
                raise PublishError(
                    f"{ensemble.name} is served over {self.model} in batches of up to {ensemble.max_batch_size}, and "
                    f"{wanted} were asked for; give --max-batch-size {ensemble.max_batch_size} or more, "
                    f"or publish {ensemble.name} with less first."
                )

    def unservable(self, version: int) -> str | None:
        """Why the server cannot load a version; None where it can."""
        if not self.target.has_file(self.model, version, self.platform.file_name):
            return f"has no {self.platform.file_name}"
        if self.platform.name != "tensorrt":
            return None
        engine = self.target.read_manifest(self.model, version).engines[self.graph]
        largest, asked_for = engine.options.max_batch, self.platform.max_batch_size
        if largest < asked_for:
            return f"takes batches of up to {largest}, and {asked_for} were asked for"
        reason = misfit("its engine", engine, self.server)
        return reason and f"this server cannot load: {reason}"

    def to_load(self, live: int) -> list[int]:
        """The live version, the versions that ensembles are pinned to until now, and one to roll back to."""
        servable = {
            version for version in self.target.versions(self.model) if self.unservable(version) is None
        }
        pinned = {
            version
            for ensemble in self.target.ensembles_over(self.model)
            for version in pinned_versions(ensemble, self.model)
        }
        versions = {live, *(servable & pinned)}
        if len(versions) < LOADED_VERSIONS:
            # Published again unchanged: what was loaded beside it stays.
            config = self.target.read_config(self.model)
            loaded = config.version_policy.specific.versions if config is not None else []
            versions.update(sorted(servable.intersection(loaded))[-LOADED_VERSIONS:])
        return sorted(versions)

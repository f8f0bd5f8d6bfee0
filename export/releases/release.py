"""One build on its way into the model repository: a numbered release, and the ensembles pointed at it.

Everything new is staged beside the repository and renamed in; a version directory never changes. The
ensembles' configurations are written last, each by one rename, so a server or a reader sees the old
release or the new one and nothing between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer, misfit
from export.errors import PublishError
from export.manifest import Manifest, engine_hashes
from export.releases.repository import Repository, pinned_versions, same_engine
from export.serving import steps as configs
from export.serving.ensembles import category_ensembles, judging_steps
from export.serving.memory_pools import MemoryPools, size_pools
from export.serving.model_files import ModelFile, broken_pins, broken_rules
from export.serving.queues import LatencyBudget, QueuePolicy, tightest
from export.serving.steps import Platform
from export.tensors import TensorSpec, image_bytes
from train.support.files import write_text

DECODER_FILES = ("1/model.py", "image_decoding.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")
LOADED_VERSIONS = 2  # of a student: the live one and the one before, to roll back to


def is_judged(manifest: Manifest) -> bool:
    """Whether the parity gate has accepted a judge that has these very engines."""
    return any(agreement.files == engine_hashes(manifest) for agreement in manifest.agreements)


@dataclass(frozen=True)
class Release:
    """One build, the repository it goes to, and how it is served there.

    Attributes:
        budget: what an image may take; None where nothing is stated, and requests may wait for any time.
    """

    manifest: Manifest
    build: Path
    target: Repository
    platform: Platform
    max_batch_size: int
    server: TargetServer
    budget: LatencyBudget | None = None

    @property
    def size(self) -> int:
        """Side of an image, pixels."""
        return self.manifest.config.image_size

    @property
    def teacher(self) -> str:
        """The teacher's model."""
        return configs.teacher_name(
            self.manifest.config.teacher, self.size, precision=self.manifest.precision
        )

    @property
    def student(self) -> str:
        """The student's model."""
        return configs.student_name(self.manifest.category, precision=self.manifest.precision)

    @property
    def foreground(self) -> str | None:
        """The model that removes the background; None where it stays."""
        method = self.manifest.config.foreground
        return None if method == "none" else configs.foreground_name(method, self.size)

    @property
    def ensembles(self) -> tuple[str, str]:
        """The category's two."""
        return self.manifest.category, f"{self.manifest.category}_encoded"

    def step_configs(self) -> dict[str, pb.ModelConfig]:
        """The configuration of each step as a first version, in the order in which an image goes through them."""
        return {
            "decoder": self._decoder_config(),
            **({"foreground": self._foreground_config([1])} if self.foreground else {}),
            "teacher": self._teacher_config([1]),
            "student": self._student_config([1]),
            "fusion": self._fusion_config(),
        }

    def memory_pools(self) -> MemoryPools:
        """What a server needs to keep this category's features on the GPU."""
        return size_pools(
            image_bytes=image_bytes([configs.image_spec(self.size)]),
            feature_bytes=image_bytes(self._features),
            distance_bytes=image_bytes([*configs.distance_specs(self.size), configs.RELEASE_ID]),
            max_batch_size=self.max_batch_size,
            instances=self.platform.concurrency(shared=False).instances,
            # A budget's longer queue empties by time, long before it is full.
            queue_size=min(self._queue(self.student).size, QueuePolicy().size),
        )

    def require_rules_kept(self) -> None:
        """Before anything is written.

        Raises:
            PublishError: one breaks a rule of Triton's, or another category needs a shared model as it is.
        """
        self._require_shared(self.teacher, "teacher")
        if self.foreground and self.manifest.config.foreground == "sam":
            replace(self, platform=self._sam_platform)._require_shared(self.foreground, "foreground")
        for graph, config in self.step_configs().items():
            if config.backend == "python":
                continue  # the server that runs these is here, and refuses them itself
            if config.backend == "tensorrt":
                file = ModelFile.of_engine(self.manifest.engines[graph])
            else:
                file = ModelFile.of_onnx(self.build / f"{graph}.onnx")
            if broken := broken_rules(config, file):
                raise PublishError(
                    f"Triton would not serve {config.name} as configured: {'; '.join(broken)}; nothing is published."
                )

    def _require_shared(self, model: str, graph: str) -> None:
        """Other categories over the same model need the versions and the batches that they were published with."""
        for ensemble in self.target.ensembles_over(model):
            if ensemble.name in self.ensembles:
                continue
            for version in pinned_versions(ensemble, model):
                if fault := self._unservable(model, version, graph):
                    raise PublishError(
                        f"{ensemble.name} is served over {model} {version}, which {fault}; a repository serves a model "
                        f"one way: publish into another one with --repository, or {ensemble.name} too."
                    )
            if ensemble.max_batch_size > self.max_batch_size:
                raise PublishError(
                    f"{ensemble.name} is served over {model} in batches of up to {ensemble.max_batch_size}, and "
                    f"{self.max_batch_size} were asked for; give --max-batch-size {ensemble.max_batch_size} or more, "
                    f"or publish {ensemble.name} with less first."
                )

    def publish(self) -> str:
        """Versions first, the ensembles last; what was done, in a line."""
        manifest, target = self.manifest, self.target
        teacher_version = self._add_teacher()
        student_version = self._add_student()
        target.publish_sibling("image_decoder", self._decoder_config(), DECODER_FILES)
        foreground_version = self._publish_foreground()
        calibration = target.root / "distance_fusion" / "calibrations" / f"{manifest.release_id}.json"
        write_text(calibration, (self.build / "calibration.json").read_text())

        teacher_config = self._teacher_config(self._loaded_versions(self.teacher, "teacher", teacher_version))
        student_config = self._student_config(self._loaded_versions(self.student, "student", student_version))
        steps = judging_steps(
            teacher=self.teacher,
            teacher_version=teacher_version,
            student=self.student,
            student_version=student_version,
            foreground=self.foreground,
            foreground_version=foreground_version,
        )
        engine = manifest.engines.get("student") if self.platform.name == "tensorrt" else None
        ensembles = category_ensembles(
            manifest,
            steps,
            max_batch_size=self.max_batch_size,
            student_sha256=(engine.file if engine else manifest.files["student.onnx"]).sha256,
            verified=engine is None or is_judged(manifest),
            parameters={
                **(self.budget.to_parameters() if self.budget else {}),
                **(self.memory_pools().to_parameters() if self.platform.on_gpu else {}),
            },
        )
        models = {config.name: config for config in (teacher_config, student_config)}
        for ensemble in ensembles:
            if broken := broken_pins(ensemble, models):
                raise PublishError(f"{'; '.join(broken)}; the ensembles stay as they are.")
        written = (self._fusion_config(), teacher_config, student_config, *ensembles)
        changed = [target.write_config(config) for config in written]
        done = "Published" if any(changed) else "Up to date"
        masked = f", masked by {self.foreground} {foreground_version}" if self.foreground else ""
        told = (
            "; start Triton with --backend-config=tensorrt,version-compatible=true"
            if engine is not None and engine.options.version_compatible
            else ""
        )
        return (
            f"{done}: {manifest.category} and {manifest.category}_encoded over {self.teacher} {teacher_version} and "
            f"{self.student} {student_version}{masked}, platform {self.platform.name}, release "
            f"{manifest.release_id}{told}"
        )

    def _teacher_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return configs.backbone_config(
            self.teacher,
            inputs=[configs.image_spec(self.size)],
            outputs=self._features,
            versions=versions,
            platform=self.platform,
            max_batch_size=self.max_batch_size,
            shared=True,
            queue=self._queue(self.teacher),
        )

    def _student_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return configs.backbone_config(
            self.student,
            inputs=[configs.image_spec(self.size), *self._features],
            outputs=[*configs.distance_specs(self.size), configs.RELEASE_ID],
            versions=versions,
            platform=self.platform,
            max_batch_size=self.max_batch_size,
            queue=self._queue(self.student),
        )

    def _foreground_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        name = configs.foreground_name(self.manifest.config.foreground, self.size)
        if self.manifest.config.foreground == "threshold":
            return configs.foreground_config(self.size, self._queue(name))
        return configs.backbone_config(
            name,
            inputs=[configs.image_spec(self.size)],
            outputs=[configs.foreground_spec(self.size)],
            versions=versions,
            platform=self._sam_platform,
            max_batch_size=self.max_batch_size,
            queue=self._queue(name),
            warm_up_sizes=[1],  # gigabytes an image
        )

    def _decoder_config(self) -> pb.ModelConfig:
        return configs.image_decoder_config(self.size, self._queue(configs.decoder_name(self.size)))

    def _fusion_config(self) -> pb.ModelConfig:
        return configs.distance_fusion_config(self._queue("distance_fusion"))

    def _queue(self, model: str) -> QueuePolicy:
        """No category waits longer at a shared step than its own budget allows; without budgets the default."""
        others = self.target.budgets_over(model, but=self.ensembles)
        return tightest([*others, *([self.budget] if self.budget else [])], model)

    @property
    def _sam_platform(self) -> Platform:
        """SAM has no engine; NVIDIA's container has ONNX Runtime too. One instance: it takes gigabytes an image."""
        platform = Platform("onnxruntime", "cuda") if self.platform.name == "tensorrt" else self.platform
        return replace(platform, instances=1)

    @property
    def _features(self) -> list[TensorSpec]:
        manifest = self.manifest
        return configs.feature_specs(self.size, manifest.teacher_channels, precision=manifest.precision)

    def _unservable(self, model: str, version: int, graph: str) -> str | None:
        """Why the platform cannot serve a version, or None."""
        if not self.target.has_file(model, version, self.platform.file_name):
            return f"has no {self.platform.file_name}"
        if self.platform.name != "tensorrt":
            return None
        record = self.target.read_manifest(model, version).engines[graph]
        if record.options.max_batch < self.max_batch_size:
            return (
                f"takes batches of up to {record.options.max_batch}, and {self.max_batch_size} were asked for"
            )
        unfit = misfit("its engine", record, self.server)
        return unfit and f"this server cannot load: {unfit}"

    def _loaded_versions(self, model: str, graph: str, live: int) -> list[int]:
        """The live version, those that ensembles are pinned to until now, and the one that was kept to roll back to."""
        there = {
            version
            for version in self.target.versions(model)
            if self._unservable(model, version, graph) is None
        }
        pinned = (pinned_versions(ensemble, model) for ensemble in self.target.ensembles_over(model))
        loaded = {live, *there.intersection(version for versions in pinned for version in versions)}
        if len(loaded) < LOADED_VERSIONS:
            # Published again unchanged: keep what was kept.
            config = self.target.read_config(model)
            kept = config.version_policy.specific.versions if config is not None else []
            loaded.update(sorted(there.intersection(kept))[-LOADED_VERSIONS:])
        return sorted(loaded)

    def _add_teacher(self) -> int:
        """Categories that agree on the weights, and on how the engine was built, share a version."""
        engine = self.manifest.engines.get("teacher")
        return self._add_version(
            self.teacher,
            "teacher",
            lambda other: other.teacher_id == self.manifest.teacher_id,
            lambda other: same_engine(other.engines.get("teacher"), engine),
        )

    def _add_student(self) -> int:
        """The very file that was held to the parity gate."""
        manifest = self.manifest
        return self._add_version(
            self.student,
            "student",
            lambda other: (
                (other.release_id, other.files["student.onnx"])
                == (manifest.release_id, manifest.files["student.onnx"])
            ),
            lambda other: (
                "student" in other.engines
                and other.engines["student"].file == manifest.engines["student"].file
            ),
        )

    def _add_version(
        self,
        model: str,
        graph: str,
        same_graph: Callable[[Manifest], bool],
        same_plan: Callable[[Manifest], bool],
    ) -> int:
        with_engine = self.platform.name == "tensorrt"
        return self.target.add_version(
            model,
            graph,
            self.build,
            self.manifest,
            with_engine=with_engine,
            same=lambda other: same_graph(other) and (not with_engine or same_plan(other)),
        )

    def _publish_foreground(self) -> int:
        """Publish the model that removes the background, if one does; its version."""
        if self.foreground is None:
            return 1
        if self.manifest.config.foreground == "threshold":
            self.target.publish_sibling("foreground", self._foreground_config([1]), FOREGROUND_FILES)
            return 1
        version = self.target.add_version(
            self.foreground,
            "foreground",
            self.build,
            self.manifest,
            with_engine=False,
            same=lambda other: other.foreground_id == self.manifest.foreground_id,
        )
        self.target.write_config(self._foreground_config(self.target.versions(self.foreground)))
        return version

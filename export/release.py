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

from export import model_configs as configs
from export.engine_target import TargetServer, misfit
from export.ensembles import category_ensembles, judging_steps
from export.errors import PublishError
from export.manifest import Manifest, engine_hashes
from export.model_configs import Platform
from export.model_rules import ModelFile, broken_pins, broken_rules
from export.repository import Repository, pinned_versions, same_engine
from export.tensors import TensorSpec
from train.files import write_text

DECODER_FILES = ("1/model.py", "image_decoding.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")
LOADED_VERSIONS = 2  # of a student: the live one and the one before, to roll back to


def is_judged(manifest: Manifest) -> bool:
    """Whether the parity gate has accepted a judge that has these very engines."""
    return any(agreement.files == engine_hashes(manifest) for agreement in manifest.agreements)


@dataclass(frozen=True)
class Release:
    """One build, the repository it goes to, and how it is served there."""

    manifest: Manifest
    build: Path
    target: Repository
    platform: Platform
    max_batch_size: int
    server: TargetServer

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
    def sam(self) -> str | None:
        """SAM's model, for a release that removes the background with it."""
        return configs.foreground_name("sam", self.size) if self.manifest.config.foreground == "sam" else None

    def require_rules_kept(self) -> None:
        """Before anything is written.

        Raises:
            PublishError: one breaks a rule of Triton's, or another category needs a shared model as it is.
        """
        planned = {"teacher": self._teacher_config([1]), "student": self._student_config([1])}
        self._require_shared(self.teacher, "teacher")
        if self.sam is not None:
            planned["foreground"] = self._sam_config([1])
            replace(self, platform=self._sam_platform)._require_shared(self.sam, "foreground")
        for graph, config in planned.items():
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
        mine = {self.manifest.category, f"{self.manifest.category}_encoded"}
        for ensemble in self.target.ensembles_over(model):
            if ensemble.name in mine:
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
        target.publish_sibling("image_decoder", configs.image_decoder_config(self.size), DECODER_FILES)
        foreground, foreground_version = self._publish_foreground()
        calibration = target.root / "distance_fusion" / "calibrations" / f"{manifest.release_id}.json"
        write_text(calibration, (self.build / "calibration.json").read_text())

        teacher_config = self._teacher_config(self._loaded_versions(self.teacher, "teacher", teacher_version))
        student_config = self._student_config(self._loaded_versions(self.student, "student", student_version))
        steps = judging_steps(
            teacher=self.teacher,
            teacher_version=teacher_version,
            student=self.student,
            student_version=student_version,
            foreground=foreground,
            foreground_version=foreground_version,
        )
        engine = manifest.engines.get("student") if self.platform.name == "tensorrt" else None
        ensembles = category_ensembles(
            manifest,
            steps,
            max_batch_size=self.max_batch_size,
            student_sha256=(engine.file if engine else manifest.files["student.onnx"]).sha256,
            verified=engine is None or is_judged(manifest),
        )
        models = {config.name: config for config in (teacher_config, student_config)}
        for ensemble in ensembles:
            if broken := broken_pins(ensemble, models):
                raise PublishError(f"{'; '.join(broken)}; the ensembles stay as they are.")
        changed = [target.write_config(config) for config in (teacher_config, student_config, *ensembles)]
        done = "Published" if any(changed) else "Up to date"
        masked = f", masked by {foreground} {foreground_version}" if foreground else ""
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
        )

    def _student_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return configs.backbone_config(
            self.student,
            inputs=[configs.image_spec(self.size), *self._features],
            outputs=[*configs.distance_specs(self.size), configs.RELEASE_ID],
            versions=versions,
            platform=self.platform,
            max_batch_size=self.max_batch_size,
        )

    def _sam_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return configs.backbone_config(
            configs.foreground_name("sam", self.size),
            inputs=[configs.image_spec(self.size)],
            outputs=[configs.foreground_spec(self.size)],
            versions=versions,
            platform=self._sam_platform,
            max_batch_size=self.max_batch_size,
            warm_up_sizes=[1],  # gigabytes an image
        )

    @property
    def _sam_platform(self) -> Platform:
        """SAM has no engine; NVIDIA's container has ONNX Runtime too."""
        return Platform("onnxruntime", "cuda") if self.platform.name == "tensorrt" else self.platform

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

    def _publish_foreground(self) -> tuple[str | None, int]:
        """The model that removes the background for a release, and its version; None where it stays."""
        method = self.manifest.config.foreground
        if method == "none":
            return None, 1
        name = configs.foreground_name(method, self.size)
        if method == "threshold":
            config = configs.foreground_config(self.size)
            self.target.publish_sibling("foreground", config, FOREGROUND_FILES)
            return name, 1
        version = self.target.add_version(
            name,
            "foreground",
            self.build,
            self.manifest,
            with_engine=False,
            same=lambda other: other.foreground_id == self.manifest.foreground_id,
        )
        self.target.write_config(self._sam_config(self.target.versions(name)))
        return name, version

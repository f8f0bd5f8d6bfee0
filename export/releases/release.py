"""One build on its way into the model repository: numbered versions, and the ensembles that point to them.

New folders are staged beside the repository and renamed into it, and a version folder never changes. The ensembles'
configurations are written last, each by one rename: a server sees the old release or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.errors import PublishError
from export.manifest import Manifest
from export.releases.repository import Repository, same_engine
from export.releases.versions import ModelVersions
from export.serving import steps
from export.serving.backbones import Platform, backbone_config
from export.serving.ensembles import category_ensembles, judging_steps
from export.serving.memory_pools import MemoryPools, size_pools
from export.serving.model_files import ModelFile, mismatches
from export.serving.queues import LatencyBudget, QueuePolicy, tightest
from export.tensors import (
    RELEASE_ID,
    TensorSpec,
    distance_specs,
    feature_specs,
    foreground_spec,
    image_bytes,
    image_spec,
)

DECODER_FILES = ("1/model.py", "image_decoding.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")


@dataclass(frozen=True)
class Release:
    """A build, the repository it goes to, and how it is served there.

    Attributes:
        manifest: of the build.
        build: the build's folder.
        target: the repository.
        platform: what runs the backbones.
        max_batch_size: images a batch, at most.
        server: what loads TensorRT's engines.
        budget: the time that an image may take; None lets requests wait for any time.
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
        """Name of the teacher's model."""
        return steps.teacher_name(self.manifest.config.teacher, self.size, precision=self.manifest.precision)

    @property
    def student(self) -> str:
        """Name of the student's model."""
        return steps.student_name(self.manifest.category, precision=self.manifest.precision)

    @property
    def foreground(self) -> str | None:
        """Name of the model that removes the background; None without background removal."""
        method = self.manifest.config.foreground
        return None if method == "none" else steps.foreground_name(method, self.size)

    @property
    def ensembles(self) -> tuple[str, str]:
        """Names of the category's two ensembles."""
        return self.manifest.category, f"{self.manifest.category}_encoded"

    def step_configs(self) -> dict[str, pb.ModelConfig]:
        """Configuration of each step as a first version, in the order in which an image goes through the steps."""
        return {
            "decoder": self._decoder_config(),
            **({"foreground": self._foreground_config([1])} if self.foreground else {}),
            "teacher": self._teacher_config([1]),
            "student": self._student_config([1]),
            "fusion": self._fusion_config(),
        }

    def memory_pools(self) -> MemoryPools:
        """The pools that a server needs to keep this category's features on the GPU."""
        return size_pools(
            image_bytes=image_bytes([image_spec(self.size)]),
            feature_bytes=image_bytes(self._features),
            distance_bytes=image_bytes([*distance_specs(self.size), RELEASE_ID]),
            max_batch_size=self.max_batch_size,
            instances=self.platform.concurrency(shared=False).instances,
            # A budget's longer queue empties by time, long before it is full.
            queue_size=min(self._queue(self.student).size, QueuePolicy().size),
        )

    def require_servable(self, read_graph: Callable[[Path], ModelFile]) -> None:
        """The server can serve this release, and other categories keep the shared models that they need.

        Args:
            read_graph: reads what an ONNX file takes and gives.

        Raises:
            PublishError: one of these does not hold; nothing has been written.
        """
        self._versions(self.teacher, "teacher").require_shared(but=self.ensembles)
        if self.foreground and self.manifest.config.foreground == "sam":
            self._versions(self.foreground, "foreground").require_shared(but=self.ensembles)
        for graph, config in self.step_configs().items():
            if config.backend == "python":
                continue  # the embedded server runs here and refuses these itself
            if config.backend == "tensorrt":
                file = ModelFile.of_engine(self.manifest.engines[graph])
            else:
                file = read_graph(self.build / f"{graph}.onnx")
            if sentences := mismatches(config, file):
                raise PublishError(
                    f"Triton would not serve {config.name} as configured: {'; '.join(sentences)}; nothing is published."
                )

    def publish(self) -> str:
        """Write versions first and the ensembles last; one line that says what was published."""
        manifest, target = self.manifest, self.target
        teacher_version, student_version = self._add_teacher(), self._add_student()
        target.publish_sibling("image_decoder", self._decoder_config(), DECODER_FILES)
        foreground_version = self._publish_foreground()
        target.write_calibration(manifest.release_id, self.build / "calibration.json")

        engine = manifest.engines.get("student") if self._with_engines else None
        ensembles = category_ensembles(
            manifest,
            judging_steps(
                teacher=self.teacher,
                teacher_version=teacher_version,
                student=self.student,
                student_version=student_version,
                foreground=self.foreground,
                foreground_version=foreground_version,
            ),
            max_batch_size=self.max_batch_size,
            student_sha256=(engine.file if engine else manifest.files["student.onnx"]).sha256,
            verified=engine is None or manifest.engines_judged,
            parameters={
                **(self.budget.to_parameters() if self.budget else {}),
                **(self.memory_pools().to_parameters() if self.platform.on_gpu else {}),
            },
        )
        configs = (
            self._fusion_config(),
            self._teacher_config(self._versions(self.teacher, "teacher").to_load(teacher_version)),
            self._student_config(self._versions(self.student, "student").to_load(student_version)),
            *ensembles,
        )
        changed = [target.write_config(config) for config in configs]
        masked = f", masked by {self.foreground} {foreground_version}" if self.foreground else ""
        remark = (
            "; start Triton with --backend-config=tensorrt,version-compatible=true"
            if engine is not None and engine.options.version_compatible
            else ""
        )
        return (
            f"{'Published' if any(changed) else 'Up to date'}: {' and '.join(self.ensembles)} over {self.teacher} "
            f"{teacher_version} and {self.student} {student_version}{masked}, platform {self.platform.name}, release "
            f"{manifest.release_id}{remark}"
        )

    def _teacher_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return backbone_config(
            self.teacher,
            inputs=[image_spec(self.size)],
            outputs=self._features,
            versions=versions,
            platform=self.platform,
            max_batch_size=self.max_batch_size,
            shared=True,
            queue=self._queue(self.teacher),
        )

    def _student_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        return backbone_config(
            self.student,
            inputs=[image_spec(self.size), *self._features],
            outputs=[*distance_specs(self.size), RELEASE_ID],
            versions=versions,
            platform=self.platform,
            max_batch_size=self.max_batch_size,
            queue=self._queue(self.student),
        )

    def _foreground_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        name = steps.foreground_name(self.manifest.config.foreground, self.size)
        if self.manifest.config.foreground == "threshold":
            return steps.foreground_config(self.size, self._queue(name))
        return backbone_config(
            name,
            inputs=[image_spec(self.size)],
            outputs=[foreground_spec(self.size)],
            versions=versions,
            platform=self._sam_platform,
            max_batch_size=self.max_batch_size,
            queue=self._queue(name),
            warm_up_sizes=[1],  # gigabytes an image
        )

    def _decoder_config(self) -> pb.ModelConfig:
        return steps.image_decoder_config(self.size, self._queue(steps.decoder_name(self.size)))

    def _fusion_config(self) -> pb.ModelConfig:
        return steps.distance_fusion_config(self._queue("distance_fusion"))

    def _queue(self, model: str) -> QueuePolicy:
        """The strictest queue of all categories that share this step; without budgets the default."""
        others = self.target.budgets_over(model, but=self.ensembles)
        return tightest([*others, *([self.budget] if self.budget else [])], model)

    @property
    def _with_engines(self) -> bool:
        return self.platform.name == "tensorrt"

    @property
    def _sam_platform(self) -> Platform:
        """SAM has no engine, so ONNX Runtime runs it in NVIDIA's container. One instance: an image takes gigabytes."""
        platform = Platform("onnxruntime", "cuda") if self._with_engines else self.platform
        return replace(platform, instances=1)

    @property
    def _features(self) -> list[TensorSpec]:
        manifest = self.manifest
        return feature_specs(self.size, manifest.teacher_channels, precision=manifest.precision)

    def _versions(self, model: str, graph: str) -> ModelVersions:
        platform = self._sam_platform if graph == "foreground" else self.platform
        return ModelVersions(self.target, model, graph, platform, self.max_batch_size, self.server)

    def _add_teacher(self) -> int:
        """Categories share a version if the weights are the same and, with engines, how the engine was built."""

        def same(other: Manifest) -> bool:
            engines = (other.engines.get("teacher"), self.manifest.engines.get("teacher"))
            return other.teacher_id == self.manifest.teacher_id and (
                not self._with_engines or same_engine(*engines)
            )

        return self._add_version(self.teacher, "teacher", same, with_engine=self._with_engines)

    def _add_student(self) -> int:
        """The version with the very files that the parity gate judged."""

        def files(manifest: Manifest) -> tuple[object, ...]:
            engine = manifest.engines.get("student") if self._with_engines else None
            return manifest.release_id, manifest.files["student.onnx"], engine and engine.file

        def same(other: Manifest) -> bool:
            return files(other) == files(self.manifest)

        return self._add_version(self.student, "student", same, with_engine=self._with_engines)

    def _publish_foreground(self) -> int:
        """Publish the model that removes the background, if there is one; its version."""
        if self.foreground is None:
            return 1
        if self.manifest.config.foreground == "threshold":
            self.target.publish_sibling("foreground", self._foreground_config([1]), FOREGROUND_FILES)
            return 1

        def same(other: Manifest) -> bool:
            return other.foreground_id == self.manifest.foreground_id

        version = self._add_version(self.foreground, "foreground", same, with_engine=False)
        self.target.write_config(self._foreground_config(self.target.versions(self.foreground)))
        return version

    def _add_version(
        self, model: str, graph: str, same: Callable[[Manifest], bool], *, with_engine: bool
    ) -> int:
        return self.target.add_version(
            model, graph, self.build, self.manifest, with_engine=with_engine, same=same
        )

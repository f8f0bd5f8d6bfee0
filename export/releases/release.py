"""One build on its way into the model repository: numbered versions, and the ensembles that point to them.

A version folder never changes. The ensembles' configurations are put in place last, each by one rename: a server sees
the old release or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.errors import PublishError
from export.manifest import Manifest
from export.records import EngineRecord
from export.releases.changes import changing
from export.releases.files import VersionFiles, add_version, write_config, write_sibling
from export.releases.ownership import require_free
from export.releases.repository import Repository
from export.releases.versions import ModelVersions
from export.serving import steps
from export.serving.backbones import Platform, backbone_config
from export.serving.backend_rules import broken_rules, lone_instance, start_options
from export.serving.ensembles import Pinned, category_ensembles, judging_steps
from export.serving.memory_pools import MemoryPools, size_pools
from export.serving.model_files import ModelFile, mismatches
from export.serving.queues import LatencyBudget, QueuePolicy, tightest
from export.serving.throughput import FusionLoad, fusion_instances, queue_size
from export.tensors import (
    ENCODED,
    RELEASE_ID,
    TensorSpec,
    distance_specs,
    feature_specs,
    foreground_spec,
    image_bytes,
    image_spec,
)
from train.config import PRESETS

DECODER_FILES = ("1/model.py", "image_decoding.py", "deep_pixels.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")


@dataclass(frozen=True)
class Release:
    """A build, the repository it goes to, and how it is served there.

    Attributes:
        manifest: of the build.
        build: the build's folder.
        target: the repository.
        platform: what runs the backbones.
        server: what loads TensorRT's engines.
        budget: the time that an image may take; None lets requests wait for any time.
        load: the images that the fusion is to keep up with; None is what two instances do.
    """

    manifest: Manifest
    build: Path
    target: Repository
    platform: Platform
    server: TargetServer
    budget: LatencyBudget | None = None
    load: FusionLoad | None = None

    @property
    def size(self) -> int:
        """Side of an image, pixels."""
        return self.manifest.config.image_size

    @property
    def models(self) -> dict[str, str]:
        """Names of the models `teacher`, `student` and, with background removal, `foreground`."""
        config, precision = self.manifest.config, self.manifest.precision
        models = {
            "teacher": steps.teacher_name(config.teacher, self.size, precision=precision),
            "student": steps.student_name(self.manifest.category, precision=precision),
        }
        if config.foreground != "none":
            models["foreground"] = steps.foreground_name(config.foreground, self.size)
        return models

    @property
    def graphs(self) -> tuple[str, ...]:
        """Those of `models` that run a graph of the build, or its engine, and have versions."""
        return ("teacher", "student", *(["foreground"] if self.manifest.config.foreground == "sam" else []))

    @property
    def ensembles(self) -> tuple[str, str]:
        """Names of the category's two ensembles."""
        return self.manifest.category, self.manifest.category + ENCODED

    def step_configs(self) -> dict[str, pb.ModelConfig]:
        """Configuration of each step as a first version, in the order in which an image goes through the steps."""
        return {
            "decoder": self._decoder_config(),
            **({"foreground": self._foreground_config([1])} if "foreground" in self.models else {}),
            "teacher": self._backbone_config("teacher", [1]),
            "student": self._backbone_config("student", [1]),
            "fusion": self._fusion_config(),
        }

    def memory_pools(self) -> MemoryPools:
        """The pools that a server needs to keep this category's features on the GPU."""
        return size_pools(
            image_bytes=image_bytes([image_spec(self.size)]),
            feature_bytes=image_bytes(self._features),
            distance_bytes=image_bytes([*distance_specs(self.size), RELEASE_ID]),
            max_batch_size=self.platform.max_batch_size,
            instances=self.platform.concurrency(shared=False).instances,
            # A budget's longer queue empties by time, long before it is full.
            queue_size=min(
                self._queue(self.models["student"]).size, queue_size(self.platform.max_batch_size)
            ),
        )

    def require_servable(self, read_graph: Callable[[Path], ModelFile]) -> None:
        """The server can serve this release, and other categories keep the shared models that they need.

        Args:
            read_graph: reads what an ONNX file takes and gives.

        Raises:
            PublishError: one of these does not hold; nothing has been written.
        """
        configs = self.step_configs()
        require_free(self.target, self.manifest.category, [config.name for config in configs.values()])
        for graph in self.graphs:
            self._versions(graph).require_shared(but=self.ensembles)
        for graph, config in configs.items():
            if sentences := [*broken_rules(config), *self._misfits(graph, config, read_graph)]:
                raise PublishError(
                    f"Triton would not serve {config.name} as configured: {'; '.join(sentences)}; nothing is published."
                )
            if config.backend != "python" and (sentence := self._lone_instance(graph, config)):
                raise PublishError(f"{sentence}; nothing is published.")

    def _lone_instance(self, graph: str, config: pb.ModelConfig) -> str | None:
        """Told on the `python` platform, and refused on Triton's own backends, where it cost a p99 of 506 ms."""
        # SAM takes seconds and gigabytes an image.
        return lone_instance(config) if graph != "foreground" else None

    def _misfits(
        self, graph: str, config: pb.ModelConfig, read_graph: Callable[[Path], ModelFile]
    ) -> list[str]:
        """Where a configuration differs from the file that it opens."""
        if config.backend == "python":
            return []  # the embedded server runs here and refuses these itself
        if config.backend == "tensorrt":
            file = ModelFile.of_engine(self.manifest.engines[graph])
        else:
            file = read_graph(self.build / f"{graph}.onnx")
        return mismatches(config, file)

    def publish(self) -> str:
        """Write versions and configurations, the ensembles last; one line that says what was published.

        Raises:
            PublishError: the repository cannot be written; it is as it was.
        """
        manifest, target = self.manifest, self.target
        with changing(target.root) as changes:
            versions = {
                graph: add_version(target, self.models[graph], self._files(graph), changes)
                for graph in self.graphs
            }
            write_sibling(target, "image_decoder", self._decoder_config(), DECODER_FILES, changes)
            if "foreground" in self.models and "foreground" not in versions:
                write_sibling(target, "foreground", self._foreground_config([1]), FOREGROUND_FILES, changes)
            calibration = target.root / ".releases" / "calibrations" / f"{manifest.weights_id}.json"
            changes.write(calibration, (self.build / "calibration.json").read_bytes())
            pinned = {graph: (model, versions.get(graph, 1)) for graph, model in self.models.items()}
            backbones = [
                self._backbone_config(graph, self._versions(graph).to_load(version))
                for graph, version in versions.items()
            ]
            remarks = [
                remark
                for graph, config in zip(versions, backbones, strict=True)
                for remark in (
                    *self._versions(graph).remarks(config, but=self.ensembles),
                    self._lone_instance(graph, config),
                )
            ]
            configs = (self._fusion_config(), *backbones, *self._ensemble_configs(pinned))
            changed = [write_config(target, config, changes) for config in configs]
        teacher, student, *mask = (f"{model} {version}" for model, version in pinned.values())
        masked = f", masked by {mask[0]}" if mask else ""
        return (
            f"{'Published' if any(changed) else 'Up to date'}: {' and '.join(self.ensembles)} over {teacher} and "
            f"{student}{masked}, platform {self.platform.name}, release {manifest.release_id}"
            + "".join(f"; {remark}" for remark in (*remarks, self._remark()) if remark)
        )

    def _ensemble_configs(self, pinned: Mapping[str, Pinned]) -> list[pb.ModelConfig]:
        """The two ensembles over these versions."""
        manifest, engine = self.manifest, self._engine("student")
        return category_ensembles(
            manifest,
            judging_steps(**pinned),
            max_batch_size=self.platform.max_batch_size,
            student_sha256=(engine.file if engine else manifest.files["student.onnx"]).sha256,
            verified=engine is None or manifest.engines_judged,
            parameters={
                **(self.budget.to_parameters() if self.budget else {}),
                **(self.load.to_parameters() if self.load else {}),
                **(self.memory_pools().to_parameters() if self.platform.on_gpu else {}),
            },
        )

    def _remark(self) -> str | None:
        """What the server must be started with."""
        engine = self._engine("student")
        if engine is not None and engine.options.version_compatible:
            return "start Triton with --backend-config=tensorrt,version-compatible=true"
        if self.platform.one_pool:
            return start_options(self.target.pool_threads())
        return None

    def _backbone_config(self, graph: str, versions: Sequence[int]) -> pb.ModelConfig:
        image, features = image_spec(self.size), self._features
        inputs, outputs = {
            "teacher": ([image], features),
            "student": ([image, *features], [*distance_specs(self.size), RELEASE_ID]),
            "foreground": ([image], [foreground_spec(self.size)]),
        }[graph]
        return backbone_config(
            self.models[graph],
            inputs=inputs,
            outputs=outputs,
            versions=versions,
            platform=self._platform(graph),
            shared=graph == "teacher",
            memory_arena=not self._is_of_edge(graph),
            queue=self._queue(self.models[graph]),
            warm_up_sizes=[1] if graph == "foreground" else (),  # SAM takes gigabytes an image
        )

    def _is_of_edge(self, graph: str) -> bool:
        """Whether a graph is one of the networks of the `edge` preset, in any preset: a teacher may be shared."""
        config, edge = self.manifest.config, PRESETS["edge"]
        return (graph, getattr(config, graph, None)) in (("teacher", edge.teacher), ("student", edge.student))

    def _foreground_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        if "foreground" in self.graphs:
            return self._backbone_config("foreground", versions)
        return steps.foreground_config(self.size, self._queue(self.models["foreground"]))

    def _decoder_config(self) -> pb.ModelConfig:
        bit_depth = self.manifest.provenance.bit_depth
        queue = self._queue(steps.decoder_name(self.size, bit_depth))
        return steps.image_decoder_config(self.size, queue, bit_depth=bit_depth)

    def _fusion_config(self) -> pb.ModelConfig:
        others = self.target.fusion_loads(but=self.ensembles)
        instances = fusion_instances([*others, *([self.load] if self.load else [])])
        return steps.distance_fusion_config(self._queue("distance_fusion"), instances=instances)

    def _queue(self, model: str) -> QueuePolicy:
        """The strictest queue of all categories that share this step, which holds whole batches of each of them."""
        others = self.target.budgets_over(model, but=self.ensembles)
        policy = tightest([*others, *([self.budget] if self.budget else [])], model)
        batches = [ensemble.max_batch_size for ensemble in self.target.ensembles_over(model)]
        return replace(
            policy, size=max(policy.size, queue_size(max([self.platform.max_batch_size, *batches])))
        )

    def _platform(self, graph: str) -> Platform:
        """What runs a graph; SAM has no engine, so ONNX Runtime runs it in NVIDIA's container."""
        if graph != "foreground":
            return self.platform
        # One instance: an image takes gigabytes.
        if self.platform.name == "tensorrt":
            return replace(self.platform, name="onnxruntime", provider="cuda", instances=1)
        return replace(self.platform, instances=1)

    @property
    def _features(self) -> list[TensorSpec]:
        manifest = self.manifest
        return feature_specs(self.size, manifest.teacher_channels, precision=manifest.precision)

    def _engine(self, graph: str) -> EngineRecord | None:
        """The engine that runs a graph; None where the graph itself runs."""
        return self.manifest.engines.get(graph) if self._platform(graph).name == "tensorrt" else None

    def _files(self, graph: str) -> VersionFiles:
        return VersionFiles(graph, self.build, self.manifest, self._engine(graph))

    def _versions(self, graph: str) -> ModelVersions:
        return ModelVersions(
            self.target, self.models[graph], graph, self.manifest, self._platform(graph), self.server
        )

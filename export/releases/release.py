"""One build on its way into the model repository: numbered versions of its steps, and the record that names them.

A version folder never changes. What Triton reads is rendered from the records (`render`) and put in place last, the
ensembles after all that they need: a server sees the old release or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.errors import PublishError
from export.manifest import Manifest
from export.records import EngineRecord
from export.releases.changes import Changes
from export.releases.files import AddedVersion, VersionFiles, add_code, add_version
from export.releases.ownership import require_free
from export.releases.record import StepRecord
from export.releases.render import FUSION, SAM_QUEUE, Demand, fusion_instances_of, graph_platform, queue_of
from export.releases.repository import Repository
from export.releases.versions import ModelVersions
from export.serving import steps
from export.serving.alignment import alignment_config, alignment_name
from export.serving.backbones import Platform, backbone_config
from export.serving.backend_rules import broken_rules, lone_instance
from export.serving.memory_pools import MemoryPools, size_pools
from export.serving.model_files import ModelFile, mismatches
from export.serving.native_pictures import NativePictures, max_pixels, usual_size
from export.serving.queues import QueuePolicy
from export.serving.throughput import FusionLoad, queue_size
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
from model_repository.alignment.reference_picture import FILE
from model_repository.image_size import ImageSize
from train.config import PRESETS


@dataclass(frozen=True)
class Release:
    """A build, the repository it goes to, and how it is served there.

    Attributes:
        manifest: of the build.
        build: the build's folder.
        target: the repository.
        platform: what runs the backbones.
        server: what loads TensorRT's engines.
        load: the images that the fusion is to keep up with; None is what two instances do.
        others: what the live releases of other categories ask of the steps that are shared.
        student: the model that its student is a version of, see `export.releases.versions.student_model`; the usual one
            where none is given.
    """

    manifest: Manifest
    build: Path
    target: Repository
    platform: Platform
    server: TargetServer
    load: FusionLoad | None = None
    others: Sequence[Demand] = ()
    student: str = ""

    @property
    def size(self) -> ImageSize:
        """That the networks see images at."""
        return self.manifest.config.image_size

    @property
    def usual_size(self) -> ImageSize:
        """The same; of images that keep their own size, that of the crops that it was trained on."""
        return usual_size(self.manifest)

    @property
    def usual_specs(self) -> list[TensorSpec]:
        """The tensors of one image of the usual size, but the verdict's."""
        features = feature_specs(
            self.usual_size, self.manifest.teacher_channels, precision=self.manifest.precision
        )
        tensors = [image_spec(self.usual_size), *features, *distance_specs(self.usual_size)]
        return [*tensors, foreground_spec(self.usual_size)]

    @property
    def decoder(self) -> str:
        """Name of the model that decodes image files."""
        provenance = self.manifest.provenance
        return steps.decoder_name(self.size, provenance.bit_depth, keep_aspect=provenance.keep_aspect)

    @property
    def models(self) -> dict[str, str]:
        """Names of the models `teacher`, `student` and, where there is one, `foreground` and `alignment`."""
        config, precision = self.manifest.config, self.manifest.precision
        models = {
            "teacher": steps.teacher_name(config.teacher, self.size, precision=precision),
            "student": self.student or steps.student_name(self.manifest.category, precision=precision),
        }
        if config.foreground != "none":
            models["foreground"] = steps.foreground_name(config.foreground, self.size)
        if self.manifest.provenance.aligned:
            models["alignment"] = alignment_name(self.manifest.category, self.size)
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
            **({"alignment": self._alignment_config()} if "alignment" in self.models else {}),
            **({"foreground": self._foreground_config([1])} if "foreground" in self.models else {}),
            "teacher": self._backbone_config("teacher", [1]),
            "student": self._backbone_config("student", [1]),
            "fusion": self._fusion_config(),
        }

    def memory_pools(self) -> MemoryPools:
        """The pools that a server needs to keep this category's features on the GPU."""
        return size_pools(
            image_bytes=image_bytes([image_spec(self.usual_size)]),
            feature_bytes=image_bytes(self._usual("teacher_")),
            distance_bytes=image_bytes([*self._usual("distance_"), RELEASE_ID]),
            max_batch_size=self.platform.max_batch_size,
            instances=self.platform.concurrency(shared=False).instances,
            queue_size=queue_size(self.platform.max_batch_size),
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
            if config.backend != "python" and (sentence := lone_instance(config)):
                raise PublishError(f"{sentence}; nothing is published.")

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

    def add_steps(self, changes: Changes) -> dict[str, StepRecord]:
        """The versions of this release's steps, added where the repository has none of these files.

        Raises:
            PublishError: the repository lacks this project's own code.
        """
        alone = replace(self, others=())
        configs, added = alone.step_configs(), {}
        for step, config in configs.items():
            if step in self.graphs:
                added[step] = add_version(self.target, config.name, self._files(step), changes)
            else:
                committed = {"decoder": "image_decoder", "fusion": FUSION}.get(step, step)
                beside = {FILE: (self.build / FILE).read_bytes()} if step == "alignment" else {}
                added[step] = add_code(self.target, config.name, committed, changes, beside)
        return {step: _step_record(added[step], config) for step, config in configs.items()}

    def remarks(self, configs: dict[str, pb.ModelConfig]) -> list[str]:
        """What new configurations change for others, and what they no longer load, a sentence each."""
        found = []
        for graph in self.graphs:
            config = configs[self.models[graph]]
            found += self._versions(graph).remarks(config, but=self.ensembles)
            # Refused on Triton's own backends, where it cost a p99 of 506 ms.
            found.append(lone_instance(config))
        return [remark for remark in found if remark]

    def _backbone_config(self, graph: str, versions: Sequence[int]) -> pb.ModelConfig:
        image, features = image_spec(self.size), self._features
        queue = self._queue(self.models[graph])
        inputs, outputs = {
            "teacher": ([image], features),
            "student": ([image, *features], [*distance_specs(self.size), RELEASE_ID]),
            "foreground": ([image], [foreground_spec(self.size)]),
        }[graph]
        native, names = NativePictures.of(self.manifest), {spec.name for spec in inputs}
        return backbone_config(
            self.models[graph],
            inputs=inputs,
            outputs=outputs,
            versions=versions,
            platform=self._platform(graph),
            shared=graph == "teacher",
            memory_arena=not self._is_of_edge(graph),
            queue=SAM_QUEUE if graph == "foreground" else queue,
            warm_up_sizes=[1] if graph == "foreground" else (),  # SAM takes gigabytes an image
            native=native,
            usual_inputs=[spec for spec in self.usual_specs if spec.name in names] if native else (),
        )

    def _is_of_edge(self, graph: str) -> bool:
        """Whether a graph is a network of the `edge` preset, in any preset: a teacher may be shared."""
        config, edge = self.manifest.config, PRESETS["edge"]
        return (graph, getattr(config, graph, None)) in (("teacher", edge.teacher), ("student", edge.student))

    def _foreground_config(self, versions: Sequence[int]) -> pb.ModelConfig:
        if "foreground" in self.graphs:
            return self._backbone_config("foreground", versions)
        queue = self._queue(self.models["foreground"])
        return steps.foreground_config(self.size, queue, usual_size=self.usual_size)

    def _alignment_config(self) -> pb.ModelConfig:
        return alignment_config(self.manifest.category, self.size, self._queue(self.models["alignment"]))

    def _decoder_config(self) -> pb.ModelConfig:
        provenance = self.manifest.provenance
        return steps.image_decoder_config(
            self.size,
            self._queue(self.decoder),
            bit_depth=provenance.bit_depth,
            keep_aspect=provenance.keep_aspect,
            max_pixels=max_pixels() if self.manifest.config.is_native else None,
        )

    def _fusion_config(self) -> pb.ModelConfig:
        instances = fusion_instances_of([*self.others, self.demand])
        return steps.distance_fusion_config(self._queue(FUSION), instances=instances)

    @property
    def demand(self) -> Demand:
        """What this release asks of the steps that it shares."""
        models, manifest = frozenset([*self.models.values(), self.decoder, FUSION]), self.manifest
        batch, native = self.platform.max_batch_size, manifest.config.is_native
        return Demand(manifest.category, models, batch, self.load, native)

    def _queue(self, model: str) -> QueuePolicy:
        return queue_of(model, [*self.others, self.demand])

    def _platform(self, graph: str) -> Platform:
        return graph_platform(self.platform, graph)

    @property
    def _features(self) -> list[TensorSpec]:
        channels, precision = self.manifest.teacher_channels, self.manifest.precision
        return feature_specs(self.size, channels, precision=precision)

    def _usual(self, name: str) -> list[TensorSpec]:
        """The tensors of one image of the usual size whose names begin so."""
        return [spec for spec in self.usual_specs if spec.name.startswith(name)]

    def engine(self, graph: str) -> EngineRecord | None:
        """The engine that runs a graph; None where the graph itself runs."""
        return self.manifest.engines.get(graph) if self._platform(graph).name == "tensorrt" else None

    def _files(self, graph: str) -> VersionFiles:
        return VersionFiles(graph, self.build, self.manifest, self.engine(graph))

    def _versions(self, graph: str) -> ModelVersions:
        model, platform = self.models[graph], self._platform(graph)
        return ModelVersions(self.target, model, graph, self.manifest, platform, self.server)


def _step_record(added: AddedVersion, config: pb.ModelConfig) -> StepRecord:
    """A step of a release; which versions are loaded is for the rendering to say."""
    config.ClearField("version_policy")
    return StepRecord(
        model=added.model,
        version=added.number,
        files=added.files,
        config=str(text_format.MessageToString(config)),
    )

"""Put a build into the model repository as a numbered release, then point the ensembles at it.

Everything new is staged beside the repository and renamed in; a version directory never changes. The
ensembles' configurations are written last, each by one rename, so a server or a reader sees the old
release or the new one and nothing between.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export import model_configs as configs
from export.engine_target import TargetServer, require_engines_run
from export.errors import PublishError
from export.manifest import Manifest, engine_path, read_manifest, require_engines
from export.model_configs import Platform
from export.model_rules import ModelFile, broken_pins, broken_rules
from export.repository import Repository, pinned_versions
from export.tensors import TensorSpec
from train.files import write_text

DECODER_FILES = ("1/model.py", "image_decoding.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")
LOADED_VERSIONS = 2  # of a student: the live one and the one before, to roll back to


def publish_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    max_batch_size: int,
    server: TargetServer | None = None,
) -> str:
    """Publish a build; a release that is there already is not copied again.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: the folder that Triton serves, with the two committed backends in it.
        platform: what runs the backbones.
        max_batch_size: images a batch, at most.
        server: what will load TensorRT's engines, on the `tensorrt` platform.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: no build, or its files changed since they were verified.
        PublishError: the folder is no model repository, the parity gate did not accept the build, an engine is not the
            server's, or a configuration breaks one of Triton's rules; nothing was published.
    """
    manifest = read_manifest(build)
    require_accepted(manifest, build)
    target = Repository(repository)
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
        )
    if platform.name == "tensorrt":
        require_engines_run(require_engines(build, manifest), server or TargetServer())
    release = _Release(manifest, build, target, platform, max_batch_size)
    release.require_rules_kept()
    return release.publish()


@dataclass(frozen=True)
class _Release:
    """One build on its way into a repository."""

    manifest: Manifest
    build: Path
    target: Repository
    platform: Platform
    max_batch_size: int

    @property
    def size(self) -> int:
        return self.manifest.config.image_size

    @property
    def teacher(self) -> str:
        return configs.teacher_name(
            self.manifest.config.teacher, self.size, precision=self.manifest.precision
        )

    @property
    def student(self) -> str:
        return configs.student_name(self.manifest.category, precision=self.manifest.precision)

    def require_rules_kept(self) -> None:
        """Before anything is written.

        Raises:
            PublishError: one breaks a rule of Triton's, or another category needs the shared teacher as it is.
        """
        self._require_shared_teacher()
        if self.platform.name == "python":
            return  # the server that runs these is here, and refuses them itself
        planned = {"teacher": self._teacher_config([1]), "student": self._student_config([1])}
        if self.manifest.config.foreground == "sam":
            planned["foreground"] = self._sam_config([1])
        for graph, config in planned.items():
            if config.backend == "tensorrt":
                file = ModelFile.of_engine(self.manifest.engines[graph])
            else:
                file = ModelFile.of_onnx(self.build / f"{graph}.onnx")
            if broken := broken_rules(config, file):
                raise PublishError(
                    f"Triton would not serve {config.name} as configured: {'; '.join(broken)}; nothing is published."
                )

    def _require_shared_teacher(self) -> None:
        """Other categories over the same teacher need the files and the batches that they were published with."""
        mine = {self.manifest.category, f"{self.manifest.category}_encoded"}
        for ensemble in self.target.ensembles_over(self.teacher):
            if ensemble.name in mine:
                continue
            lacking = [
                version
                for version in pinned_versions(ensemble, self.teacher)
                if not self.target.has_file(self.teacher, version, self.platform.file_name)
            ]
            if lacking:
                raise PublishError(
                    f"{ensemble.name} is served over {self.teacher} {lacking[0]}, which has no "
                    f"{self.platform.file_name}; a repository serves a teacher one way: publish into another one with "
                    f"--repository, or {ensemble.name} too."
                )
            if ensemble.max_batch_size > self.max_batch_size:
                raise PublishError(
                    f"{ensemble.name} is served over {self.teacher} in batches of up to {ensemble.max_batch_size}, and "
                    f"{self.max_batch_size} were asked for; give --max-batch-size {ensemble.max_batch_size} or more, "
                    f"or publish {ensemble.name} with less first."
                )

    def publish(self) -> str:
        """Versions first, the ensembles last; what was done, in a line."""
        manifest, target = self.manifest, self.target
        teacher_version = self._add_version(
            self.teacher, "teacher", lambda other: other.teacher_id == manifest.teacher_id
        )
        student_version = self._add_version(
            self.student, "student", lambda other: other.release_id == manifest.release_id
        )
        _publish_sibling(target, "image_decoder", configs.image_decoder_config(self.size), DECODER_FILES)
        foreground, foreground_version = self._publish_foreground()
        calibration = target.root / "distance_fusion" / "calibrations" / f"{manifest.release_id}.json"
        write_text(calibration, (self.build / "calibration.json").read_text())

        teacher_config = self._teacher_config(self._servable(self.teacher))
        student_config = self._student_config(self._loaded_versions(student_version))
        steps = configs.judging_steps(
            teacher=self.teacher,
            teacher_version=teacher_version,
            student=self.student,
            student_version=student_version,
            foreground=foreground,
            foreground_version=foreground_version,
        )
        ensembles = _ensembles(manifest, steps, self.max_batch_size)
        models = {config.name: config for config in (teacher_config, student_config)}
        for ensemble in ensembles:
            if broken := broken_pins(ensemble, models):
                raise PublishError(f"{'; '.join(broken)}; the ensembles stay as they are.")
        changed = [target.write_config(config) for config in (teacher_config, student_config, *ensembles)]
        done = "Published" if any(changed) else "Up to date"
        masked = f", masked by {foreground} {foreground_version}" if foreground else ""
        return (
            f"{done}: {manifest.category} and {manifest.category}_encoded over {self.teacher} {teacher_version} and "
            f"{self.student} {student_version}{masked}, platform {self.platform.name}, release {manifest.release_id}"
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

    @property
    def _features(self) -> list[TensorSpec]:
        manifest = self.manifest
        return configs.feature_specs(self.size, manifest.teacher_channels, precision=manifest.precision)

    def _servable(self, model: str) -> list[int]:
        """Versions that hold the file which the platform opens."""
        return [
            version
            for version in self.target.versions(model)
            if self.target.has_file(model, version, self.platform.file_name)
        ]

    def _add_version(self, model: str, graph: str, same: Callable[[Manifest], bool]) -> int:
        """The version that holds this graph, today's backend and the engine, added where there is none."""
        backend = resources.files("export.backends").joinpath("onnxruntime_model.py").read_text()
        engine = self.manifest.engines.get(graph) if self.platform.name == "tensorrt" else None

        def matches(other: Manifest) -> bool:
            theirs = other.engines.get(graph)
            return same(other) and (engine is None or (theirs is not None and theirs.file == engine.file))

        found = self.target.find_version(model, matches)
        if found is not None:
            folder = self.target.root / model / str(found)
            complete = self.target.has_file(model, found, self.platform.file_name)
            if complete and (folder / "model.py").read_text() == backend:
                return found
        version = max(self.target.versions(model), default=0) + 1
        with self.target.staged(self.target.root / model / str(version)) as folder:
            shutil.copyfile(self.build / f"{graph}.onnx", folder / "model.onnx")
            (folder / "model.py").write_text(backend)
            if engine is not None:
                shutil.copyfile(engine_path(self.build, graph), folder / "model.plan")
            (folder / "manifest.json").write_text(self.manifest.model_dump_json(indent=2) + "\n")
        return version

    def _loaded_versions(self, live: int) -> list[int]:
        """Of the student: the live version, the one that was live before, and no others."""
        loaded, there = {live}, set(self._servable(self.student))
        ensemble = self.target.read_config(self.manifest.category)
        if ensemble is not None:
            loaded.update(there.intersection(pinned_versions(ensemble, self.student)))
        if len(loaded) < LOADED_VERSIONS:
            # Published again unchanged: keep what was kept.
            config = self.target.read_config(self.student)
            kept = config.version_policy.specific.versions if config is not None else []
            loaded.update(sorted(there.intersection(kept))[-LOADED_VERSIONS:])
        return sorted(loaded)

    def _publish_foreground(self) -> tuple[str | None, int]:
        """The model that removes the background for a release, and its version; None where it stays."""
        method = self.manifest.config.foreground
        if method == "none":
            return None, 1
        name = configs.foreground_name(method, self.size)
        if method == "threshold":
            _publish_sibling(
                self.target, "foreground", configs.foreground_config(self.size), FOREGROUND_FILES
            )
            return name, 1
        sam = replace(self, platform=self._sam_platform)
        version = sam._add_version(
            name, "foreground", lambda other: other.foreground_id == self.manifest.foreground_id
        )
        self.target.write_config(self._sam_config(self.target.versions(name)))
        return name, version

    @property
    def _sam_platform(self) -> Platform:
        """SAM has no engine; NVIDIA's container has ONNX Runtime too."""
        return Platform("onnxruntime", "cuda") if self.platform.name == "tensorrt" else self.platform

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


def require_accepted(manifest: Manifest, build: Path) -> None:
    """What the parity gate found beyond its limits is not published.

    Raises:
        PublishError: such a judge is in the manifest.
    """
    if manifest.refused:
        raise PublishError(
            f"{build} does not judge as its checkpoint does ({', '.join(manifest.refused)}); nothing is published; "
            "export again."
        )


def _publish_sibling(
    target: Repository, committed: str, config: pb.ModelConfig, parts: Sequence[str]
) -> None:
    """Give an image size of its own a committed backend under another name."""
    source, folder = target.root / committed, target.root / config.name
    if not source.is_dir():
        raise PublishError(
            f"{target.root} holds no {committed} backend; expected the project's model_repository/."
        )
    if source == folder:
        return
    for part in parts:
        if not (folder / part).is_file() or (folder / part).read_bytes() != (source / part).read_bytes():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part, folder / part)
    target.write_config(config)


def _ensembles(manifest: Manifest, steps: list[configs.Step], max_batch_size: int) -> list[pb.ModelConfig]:
    """`<category>` and `<category>_encoded`."""
    size = manifest.config.image_size
    parameters = {
        "release_id": str(manifest.release_id),
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "dataset": manifest.provenance.dataset,
        "data_fingerprint": manifest.provenance.data_fingerprint,
        "synthetic": json.dumps(manifest.provenance.synthetic),
        "preset": manifest.config.preset,
        "precision": manifest.precision,
    }
    return [
        configs.ensemble_config(
            manifest.category,
            inputs=[configs.image_spec(size)],
            outputs=configs.verdict_specs(size),
            steps=steps,
            parameters=parameters,
            max_batch_size=max_batch_size,
        ),
        configs.ensemble_config(
            f"{manifest.category}_encoded",
            inputs=[configs.ENCODED_IMAGE],
            outputs=[*configs.verdict_specs(size), configs.ORIGINAL_SIZE],
            steps=[configs.decoding_step(size), *steps],
            parameters=parameters,
            max_batch_size=max_batch_size,
        ),
    ]

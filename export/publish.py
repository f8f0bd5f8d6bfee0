"""Put a build into the model repository as a numbered release, then point the ensembles at it.

Everything new is staged beside the repository and renamed in; a version directory never changes. The
ensembles' configurations are written last, each by one rename, so a server or a reader sees the old
release or the new one and nothing between.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import model_configs as configs
from export.errors import PublishError
from export.manifest import Manifest, read_manifest
from train.files import write_text

DECODER_FILES = ("1/model.py", "image_decoding.py", "warmup/encoded_image")
FOREGROUND_FILES = ("1/model.py", "foreground_mask.py")
LOADED_VERSIONS = 2  # of a student: the live one and the one before, to roll back to


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


def publish_category(build: Path, *, repository: Path, platform: str, max_batch_size: int) -> str:
    """Publish a build; a release that is there already is not copied again.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: the folder that Triton serves, with the two committed backends in it.
        platform: `python` or `onnxruntime`, see `export.model_configs.backbone_config`.
        max_batch_size: images a batch, at most.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: no build, or its files changed since they were verified.
        PublishError: the folder is no model repository, or the parity gate did not accept the build.
    """
    manifest = read_manifest(build)
    require_accepted(manifest, build)
    target = Repository(repository)
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
        )
    size = manifest.config.image_size
    student = configs.student_name(manifest.category, precision=manifest.precision)
    teacher = configs.teacher_name(manifest.config.teacher, size, precision=manifest.precision)

    teacher_version = _add_version(
        target,
        teacher,
        build / "teacher.onnx",
        manifest,
        lambda other: other.teacher_id == manifest.teacher_id,
    )
    student_version = _add_version(
        target,
        student,
        build / "student.onnx",
        manifest,
        lambda other: other.release_id == manifest.release_id,
    )
    _publish_sibling(target, "image_decoder", configs.image_decoder_config(size), DECODER_FILES)
    foreground, foreground_version = _publish_foreground(
        target, build, manifest, platform=platform, max_batch_size=max_batch_size
    )
    calibration = repository / "distance_fusion" / "calibrations" / f"{manifest.release_id}.json"
    write_text(calibration, (build / "calibration.json").read_text())

    image = configs.image_spec(size)
    features = configs.feature_specs(size, manifest.teacher_channels, precision=manifest.precision)
    changed = [
        target.write_config(
            configs.backbone_config(
                teacher,
                inputs=[image],
                outputs=features,
                versions=target.versions(teacher),
                platform=platform,
                max_batch_size=max_batch_size,
            )
        ),
        target.write_config(
            configs.backbone_config(
                student,
                inputs=[image, *features],
                outputs=[*configs.distance_specs(size), configs.RELEASE_ID],
                versions=_loaded_versions(target, manifest.category, student, student_version),
                platform=platform,
                max_batch_size=max_batch_size,
            )
        ),
    ]
    steps = configs.judging_steps(
        teacher=teacher,
        teacher_version=teacher_version,
        student=student,
        student_version=student_version,
        foreground=foreground,
        foreground_version=foreground_version,
    )
    changed += [target.write_config(config) for config in _ensembles(manifest, steps, max_batch_size)]
    done = "Published" if any(changed) else "Up to date"
    masked = f", masked by {foreground} {foreground_version}" if foreground else ""
    return (
        f"{done}: {manifest.category} and {manifest.category}_encoded over {teacher} {teacher_version} and "
        f"{student} {student_version}{masked}, platform {platform}, release {manifest.release_id}"
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


def _add_version(
    target: Repository, model: str, graph: Path, manifest: Manifest, same: Callable[[Manifest], bool]
) -> int:
    """The version that holds this graph and today's backend, added where there is none."""
    backend = resources.files("export.backends").joinpath("onnxruntime_model.py").read_text()
    found = target.find_version(model, same)
    if found is not None and (target.root / model / str(found) / "model.py").read_text() == backend:
        return found
    version = max(target.versions(model), default=0) + 1
    with target.staged(target.root / model / str(version)) as folder:
        shutil.copyfile(graph, folder / "model.onnx")
        (folder / "model.py").write_text(backend)
        (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return version


def _loaded_versions(target: Repository, category: str, student: str, live: int) -> list[int]:
    """The live version, the one that was live before, and no others."""
    loaded = {live}
    ensemble = target.read_config(category)
    if ensemble is not None:
        previous = [
            step.model_version for step in ensemble.ensemble_scheduling.step if step.model_name == student
        ]
        loaded.update(version for version in previous if version in target.versions(student))
    if len(loaded) < LOADED_VERSIONS:
        # Published again unchanged: keep what was kept.
        config = target.read_config(student)
        kept = config.version_policy.specific.versions if config is not None else []
        loaded.update(sorted(set(kept) & set(target.versions(student)))[-LOADED_VERSIONS:])
    return sorted(loaded)


def _publish_foreground(
    target: Repository, build: Path, manifest: Manifest, *, platform: str, max_batch_size: int
) -> tuple[str | None, int]:
    """The model that removes the background for a release, and its version; None where it stays."""
    method, size = manifest.config.foreground, manifest.config.image_size
    if method == "none":
        return None, 1
    name = configs.foreground_name(method, size)
    if method == "threshold":
        _publish_sibling(target, "foreground", configs.foreground_config(size), FOREGROUND_FILES)
        return name, 1
    version = _add_version(
        target,
        name,
        build / "foreground.onnx",
        manifest,
        lambda other: other.foreground_id == manifest.foreground_id,
    )
    target.write_config(
        configs.backbone_config(
            name,
            inputs=[configs.image_spec(size)],
            outputs=[configs.foreground_spec(size)],
            versions=target.versions(name),
            platform=platform,
            max_batch_size=max_batch_size,
            warm_up_sizes=[1],  # gigabytes an image
        )
    )
    return name, version


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

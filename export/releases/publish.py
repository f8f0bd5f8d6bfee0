"""`export publish`: the conditions that a build must meet before `export.releases.release` writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from export.engines.target import TargetServer, require_engines_run
from export.errors import PublishError
from export.manifest import Manifest, read_manifest, require_engines
from export.releases.lock import publishing_alone
from export.releases.release import Release
from export.releases.remarks import serving_remarks
from export.releases.repository import Repository
from export.serving.backbones import Platform
from export.serving.model_files import ModelFile
from export.serving.queues import LatencyBudget
from export.serving.throughput import chosen_batch, measure_load
from model_repository.distance_fusion.map_fusion import Calibration
from train.support.category_names import check_category_name

# Milliseconds of each step of a build on a platform, by step; `export.serving.service_times` measures them.
TimeSteps = Callable[[Path, Manifest, Platform], Mapping[str, float]]


def publish_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    read_graph: Callable[[Path], ModelFile],
    server: TargetServer | None = None,
    unverified: bool = False,
    latency_budget_ms: float | None = None,
    time_steps: TimeSteps | None = None,
    images_per_s: float | None = None,
) -> str:
    """Publish a build; a version that the repository holds already is not copied again.

    What needs onnx or ONNX Runtime is handed in, so that everything else about releases works without them.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: the folder that Triton serves; it holds the committed backends.
        platform: what runs the backbones.
        read_graph: reads what an ONNX file takes and gives: `export.serving.onnx_files.read_onnx_file`.
        server: what loads TensorRT's engines, on the `tensorrt` platform.
        unverified: publish engines that the parity gate has not judged; the ensembles say so.
        latency_budget_ms: the time that an image may take from its arrival to its verdict; None is any time.
        time_steps: times the steps, for a latency budget.
        images_per_s: of this category that the fusion is to keep up with; None is what two instances do.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: there is no build, or its files were changed after export.
        DataError: the category's name is none that can be served.
        PublishError: the folder is no model repository or cannot be written, another publisher holds it, the parity
            gate refused the build, a category that is published there would lose a model, the server cannot load the
            engines, a configuration does not fit its file, or an image takes longer than its budget. The repository is
            as it was.
    """
    manifest = read_manifest(build)
    check_category_name(manifest.category)
    _require_agreement(build, manifest)
    require_repository(repository)
    require_calibration(build, manifest, repository=repository)
    server = server or TargetServer()
    if platform.name == "tensorrt":
        require_engines_run(require_engines(build, manifest), server)
        if not (unverified or manifest.engines_judged):
            raise PublishError(
                f"The engines of {manifest.category} were never held to the parity gate; run `python -m export verify "
                f"--category {manifest.category}` where their TensorRT and GPU are, or publish with --unverified and "
                "verify the live ensemble with --url before it judges parts."
            )
    release = stated_release(build, manifest, repository, platform, server, images_per_s)
    service_ms = time_steps(build, manifest, platform) if time_steps and latency_budget_ms is not None else {}
    with publishing_alone(repository):
        release.require_servable(read_graph)
        if latency_budget_ms is not None:
            release = with_budget(release, latency_budget_ms, service_ms)
        return release.publish() + "".join(f"; {remark}" for remark in serving_remarks(release))


def stated_release(
    build: Path,
    manifest: Manifest,
    repository: Path,
    platform: Platform,
    server: TargetServer,
    images_per_s: float | None,
) -> Release:
    """The release with the batches that its platform wants, where none were stated, and the load of the fusion."""
    if not platform.max_batch_size:
        engines = manifest.engines.values() if platform.name == "tensorrt" else ()
        batch = chosen_batch(
            manifest.config.image_size,
            on_gpu=platform.on_gpu,
            engine_batches=[engine.options.max_batch for engine in engines],
        )
        platform = replace(platform, max_batch_size=batch)
    load = None
    if images_per_s is not None:
        load = measure_load(images_per_s, Calibration.load(build / "calibration.json"))
    return Release(manifest, build, Repository(repository), platform, server, load=load)


def _require_agreement(build: Path, manifest: Manifest) -> None:
    if manifest.refused:
        raise PublishError(
            f"{build} does not judge as its checkpoint does ({', '.join(manifest.refused)}); nothing is published; "
            "export again."
        )


def with_budget(release: Release, latency_budget_ms: float, service_ms: Mapping[str, float]) -> Release:
    """The release with queues that keep a latency budget, where its steps take `service_ms` each.

    Raises:
        PublishError: the time of a step is missing, or the steps take the whole budget.
    """
    models = {step: config.name for step, config in release.step_configs().items()}
    if missing := [step for step in models if step not in service_ms]:
        raise PublishError(
            f"How long {' and '.join(missing)} take on the server's GPU cannot be measured here; state each with "
            "--service-ms STEP=MS, or give no --latency-budget-ms."
        )
    budget = LatencyBudget(latency_budget_ms, {models[step]: step_ms for step, step_ms in service_ms.items()})
    budget.policies()  # raises where nothing is left to wait
    return replace(release, budget=budget)


def require_repository(repository: Path) -> None:
    """Require the project's model repository.

    Raises:
        PublishError: the folder lacks the committed backend of the fusion.
    """
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
        )


def require_calibration(build: Path, manifest: Manifest, *, repository: Path) -> None:
    """Require the calibration that the server is to judge this release with, and a fusion there that can read it.

    Raises:
        PublishError: it cannot be read, holds a value that no verdict can rest on, belongs to another release, or the
            repository's fusion is too old for it.
    """
    path = build / "calibration.json"
    try:
        calibration = Calibration.load(path)
    except (OSError, ValueError) as error:
        raise PublishError(
            f"{path} cannot be used ({error}); nothing is published; train and export again."
        ) from None
    fusion = repository / "distance_fusion" / "fusion_calibration.py"
    if not fusion.is_file() or b"weights_id" not in fusion.read_bytes():
        raise PublishError(
            f"{repository} holds a distance_fusion of an earlier version, which cannot read {path}; nothing is "
            "published; copy this version's model_repository/distance_fusion there."
        )
    if not manifest.weights_id:
        raise PublishError(
            f"{build} was exported by an earlier version, whose student does not name its weights; nothing is "
            "published; export again."
        )
    found, expected = (
        (calibration.weights_id, calibration.image_size),
        (manifest.weights_id, manifest.config.image_size),
    )
    if found != expected:
        raise PublishError(
            f"{path} is of weights {found[0]} and images of {found[1]} pixels; expected weights {expected[0]} and "
            f"{expected[1]} pixels; nothing is published; export again."
        )

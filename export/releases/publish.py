"""`export publish`: what may be published at all, before `export.releases.release` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from export.engines.target import TargetServer, require_engines_run
from export.errors import PublishError
from export.manifest import Manifest, read_manifest, require_engines
from export.releases.release import Release, is_judged
from export.releases.repository import Repository
from export.serving.queues import LatencyBudget
from export.serving.service_times import time_steps
from export.serving.steps import Platform
from train.support.cores import usable_cores

NOTHING_STATED: Mapping[str, float] = MappingProxyType({})


def publish_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    max_batch_size: int,
    server: TargetServer | None = None,
    unverified: bool = False,
    latency_budget_ms: float | None = None,
    service_ms: Mapping[str, float] = NOTHING_STATED,
) -> str:
    """Publish a build; a release that is there already is not copied again.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: the folder that Triton serves, with the two committed backends in it.
        platform: what runs the backbones.
        max_batch_size: images a batch, at most.
        server: what will load TensorRT's engines, on the `tensorrt` platform.
        unverified: publish engines that the parity gate has not seen; the ensembles say so.
        latency_budget_ms: what an image may take from its arrival to its verdict; None bounds no time.
        service_ms: of steps whose time is known and not to be measured here, by step.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: no build, or its files changed since they were verified.
        PublishError: the folder is no model repository, the parity gate did not accept the build, an engine is not the
            server's, a configuration breaks one of Triton's rules, or an image takes longer than its budget; nothing
            was published.
    """
    manifest = read_manifest(build)
    require_accepted(manifest, build)
    require_repository(repository)
    server = server or TargetServer()
    if platform.name == "tensorrt":
        require_engines_run(require_engines(build, manifest), server)
        if not unverified:
            require_judged_engines(manifest)
    release = Release(manifest, build, Repository(repository), platform, max_batch_size, server)
    release.require_rules_kept()
    if latency_budget_ms is not None:
        release = with_budget(release, latency_budget_ms, measure_steps(release, service_ms))
    return release.publish()


def measure_steps(release: Release, service_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds that each step of a release takes for one image, by step; see `time_steps`."""
    threads = release.platform.concurrency(shared=False).threads
    return time_steps(
        release.build,
        release.manifest,
        threads=min(threads, usable_cores()),
        on_gpu=release.platform.on_gpu,
        stated_ms=service_ms,
    )


def with_budget(release: Release, latency_budget_ms: float, service_ms: Mapping[str, float]) -> Release:
    """A release whose queues keep a budget.

    Args:
        release: what is to be published.
        latency_budget_ms: what an image may take from its arrival to its verdict.
        service_ms: milliseconds of each step, by step.

    Raises:
        PublishError: the steps alone take as long, or what one takes is not known.
    """
    models = {step: config.name for step, config in release.step_configs().items()}
    if missing := [step for step in models if step not in service_ms]:
        raise PublishError(
            f"How long {' and '.join(missing)} take on the server's GPU cannot be measured here; state each with "
            "--service-ms STEP=MS, or give no --latency-budget-ms."
        )
    budget = LatencyBudget(latency_budget_ms, {models[step]: took for step, took in service_ms.items()})
    budget.policies()
    return replace(release, budget=budget)


def require_repository(repository: Path) -> None:
    """The folder is the project's model repository.

    Raises:
        PublishError: the committed backend of the fusion is not there.
    """
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
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


def require_judged_engines(manifest: Manifest) -> None:
    """The parity gate has judged the test set with these very engines.

    Raises:
        PublishError: with none, or with others.
    """
    if not is_judged(manifest):
        raise PublishError(
            f"The engines of {manifest.category} were never held to the parity gate; run `python -m export verify "
            f"--category {manifest.category}` where their TensorRT and GPU are, or publish with --unverified and "
            "verify the live ensemble with --url before it judges parts."
        )

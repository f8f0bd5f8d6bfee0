"""`export publish`: what may be published at all, before `export.release` does it."""

from __future__ import annotations

from pathlib import Path

from export.engine_target import TargetServer, require_engines_run
from export.errors import PublishError
from export.manifest import Manifest, read_manifest, require_engines
from export.model_configs import Platform
from export.release import Release, is_judged
from export.repository import Repository


def publish_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    max_batch_size: int,
    server: TargetServer | None = None,
    unverified: bool = False,
) -> str:
    """Publish a build; a release that is there already is not copied again.

    Args:
        build: build/<category>/, as `export onnx` left it.
        repository: the folder that Triton serves, with the two committed backends in it.
        platform: what runs the backbones.
        max_batch_size: images a batch, at most.
        server: what will load TensorRT's engines, on the `tensorrt` platform.
        unverified: publish engines that the parity gate has not seen; the ensembles say so.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: no build, or its files changed since they were verified.
        PublishError: the folder is no model repository, the parity gate did not accept the build, an engine is not the
            server's, or a configuration breaks one of Triton's rules; nothing was published.
    """
    manifest = read_manifest(build)
    require_accepted(manifest, build)
    if not (repository / "distance_fusion" / "map_fusion.py").is_file():
        raise PublishError(
            f"{repository} holds no distance_fusion backend; expected the project's model_repository/."
        )
    server = server or TargetServer()
    if platform.name == "tensorrt":
        require_engines_run(require_engines(build, manifest), server)
        if not unverified:
            require_judged_engines(manifest)
    release = Release(manifest, build, Repository(repository), platform, max_batch_size, server)
    release.require_rules_kept()
    return release.publish()


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

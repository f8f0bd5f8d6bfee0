"""`export publish`: the conditions that a build must meet before it becomes a release, and its record."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.engines.target import TargetServer, require_engines_run
from export.errors import PublishError
from export.manifest import Manifest, read_manifest, require_engines
from export.releases.audit.entries import Act, is_noted, note
from export.releases.audit.signatures import Signer
from export.releases.changes import changing
from export.releases.lock import publishing_alone
from export.releases.plan import (
    beside_others,
    require_repository,
    stated_release,
)
from export.releases.record import ProbeImage, Record, StepRecord, published_now
from export.releases.release import Release
from export.releases.remarks import not_live, serving_remarks, start_remark, what_was_published
from export.releases.render import FUSION
from export.releases.store import Store
from export.releases.switch import Served
from export.serving.backbones import Platform
from export.serving.model_files import ModelFile
from model_repository.distance_fusion.map_fusion import Calibration, fusion_code_id, release_id_of
from model_repository.image_size import size_text
from train.support.category_names import check_category_name


@dataclass(frozen=True)
class Circumstances:
    """What a record says of a publishing besides the build.

    Attributes:
        why: the reason that was given.
        auroc: image AUROC of the evaluation, where it is of this release.
        probes: gives PNG files that the release is asked about before it becomes live, with their scores.
        live: whether it becomes live at once; the first release of a category does in any case.
        signer: of who signs the record and the audit log.
    """

    why: str = ""
    auroc: float | None = None
    probes: Callable[[Path, Manifest], Sequence[tuple[bytes, float]]] | None = None
    live: bool = True
    signer: Signer | None = None


AT_ONCE = Circumstances()


def publish_category(
    build: Path,
    *,
    repository: Path,
    platform: Platform,
    read_graph: Callable[[Path], ModelFile],
    server: TargetServer | None = None,
    unverified: bool = False,
    images_per_s: float | None = None,
    circumstances: Circumstances = AT_ONCE,
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
        images_per_s: of this category that the fusion is to keep up with; None is what two instances do.
        circumstances: why, with what measures, and whether it becomes live.

    Returns:
        One line that says what was published.

    Raises:
        ExportError: there is no build, or its files were changed after export.
        DataError: the category's name is none that can be served.
        PublishError: the folder is no model repository or cannot be written, another publisher holds it, the parity
            gate refused the build, a category that is published there would lose a model, the server cannot load the
            engines, or a configuration does not fit its file. The repository is as it was.
    """
    manifest = read_manifest(build)
    check_category_name(manifest.category)
    _require_agreement(build, manifest)
    require_repository(repository)
    require_calibration(build, manifest, repository=repository)
    server = server or TargetServer()
    if platform.name == "tensorrt":
        _require_engines(build, manifest, server, unverified=unverified)
    release = stated_release(build, manifest, repository, platform, server, images_per_s)
    probes = _probe_images(build, manifest, circumstances)
    with publishing_alone(repository):
        release = beside_others(release)
        release.require_servable(read_graph)
        return _publish(release, circumstances, probes)


def _probe_images(build: Path, manifest: Manifest, circumstances: Circumstances) -> list[ProbeImage]:
    made = circumstances.probes(build, manifest) if circumstances.probes else ()
    return [ProbeImage(png=base64.b64encode(file).decode(), score=score) for file, score in made]


def _require_engines(build: Path, manifest: Manifest, server: TargetServer, *, unverified: bool) -> None:
    """The engines run where they are to be served, and the parity gate has judged with them."""
    require_engines_run(require_engines(build, manifest), server)
    if not (unverified or manifest.engines_judged):
        raise PublishError(
            f"The engines of {manifest.category} were never held to the parity gate; run `python -m export verify "
            f"--category {manifest.category}` where their TensorRT and GPU are, or publish with --unverified and "
            "verify the live ensemble with --url before it judges parts."
        )


def _publish(release: Release, circumstances: Circumstances, probes: list[ProbeImage]) -> str:
    """Write versions, record and, where it becomes live, configurations; one line that says what was published."""
    manifest, target, store = release.manifest, release.target, Store(release.target.root)
    served, number = Served.now(target), max(store.numbers(manifest.category), default=0) + 1
    served.tell_damaged(but=manifest.category)
    if manifest.category not in served.pointers:  # files that are gone are published again
        served.require_sound(manifest.category)
    with changing(target.root) as changes:
        draft = _record(release, release.add_steps(changes), number, circumstances, probes)
        earlier = [record for record in store.records(manifest.category) if record.serves_as(draft)]
        record = earlier[-1] if earlier else draft
        changed = not earlier
        if not earlier:
            changes.write(store.record_path(record.category, number), record.to_json().encode())
        live = circumstances.live or manifest.category not in served.pointers
        if live:
            served = served.switched_to(record)
        configs = served.step_configs(release.server)
        remarks = release.remarks(configs) if live else []
        changed |= served.write(changes, configs)
        if changed or not is_noted(target.root, record):
            act = Act(circumstances.why, circumstances.signer)
            remarks = [*remarks, note(changes, target.root, "publish", record, act) or ""]
    said = [not_live(record, served), *remarks, start_remark(release), *serving_remarks(release)]
    return what_was_published(release, record, changed=changed) + "".join(
        f"; {remark}" for remark in said if remark
    )


def _record(
    release: Release,
    steps: dict[str, StepRecord],
    number: int,
    circumstances: Circumstances,
    probes: list[ProbeImage],
) -> Record:
    """The record of a release that is published now."""
    manifest, target = release.manifest, release.target
    calibration = Calibration.load(release.build / "calibration.json")
    release_id = release_id_of(calibration, fusion_code_id(target.root / FUSION))
    return Record(
        serial=Store(target.root).next_serial(),
        number=number,
        category=manifest.category,
        release_id=release_id,
        steps=steps,
        platform=release.platform,
        load=release.load,
        pools=release.memory_pools() if release.platform.on_gpu else None,
        verified=release.engine("student") is None or manifest.engines_judged,
        calibration=replace(calibration, release_id=release_id),
        auroc=circumstances.auroc,
        probes=probes,
        published=published_now(circumstances.why),
        manifest=manifest,
    )


def _require_agreement(build: Path, manifest: Manifest) -> None:
    if manifest.refused:
        raise PublishError(
            f"{build} does not judge as its checkpoint does ({', '.join(manifest.refused)}); nothing is published; "
            "export again."
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
    if not fusion.is_file() or _named_by_its_reader(calibration) not in fusion.read_bytes():
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
        (calibration.weights_id, size_text(calibration.image_size)),
        (manifest.weights_id, size_text(manifest.config.image_size)),
    )
    if found != expected:
        raise PublishError(
            f"{path} is of weights {found[0]} and images of {found[1]} pixels; expected weights {expected[0]} and "
            f"{expected[1]} pixels; nothing is published; export again."
        )


def _named_by_its_reader(calibration: Calibration) -> bytes:
    """What stands in the code of a fusion that can read a calibration, and not in that of one before."""
    if calibration.picture_only:
        return b"picture_only"
    if calibration.regions is not None:
        return b"fusion_regions"
    if calibration.fusion.is_native:
        return b"NATIVE"
    return b"weights_id" if isinstance(calibration.image_size, int) else b"sides_of"

"""The release of a bundle becomes versions and a record of a repository; which release is live stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from export.errors import PublishError
from export.records import FileRecord
from export.releases.audit.entries import NO_ACT, Act, is_noted, note
from export.releases.audit.signatures import PACKED
from export.releases.audit.verification import require_untouched
from export.releases.bundles.contents import RECORD, SIGNATURE, Bundle
from export.releases.changes import Changes, changing
from export.releases.files import WARM_UP
from export.releases.ownership import require_free
from export.releases.record import Record, StepRecord
from export.releases.render import FUSION, runs_a_graph
from export.releases.repository import CONFIG, Repository
from export.releases.store import FOLDER, Store
from export.releases.versions import student_model, tensors_of
from model_repository.onnx_contents import OnnxError, require_plain

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Added:
    """What came of a bundle.

    Attributes:
        record: the release as this repository has it.
        new: whether it was not here before.
        versions: the folders that were added, `pill_student/2`; the other steps were here already.
        same_bytes: whether the record is the packed one byte for byte, so that its signature fits it here too.
        clock: that the clock was set back, a sentence without a full stop; None as a rule.
    """

    record: Record
    new: bool
    versions: tuple[str, ...]
    same_bytes: bool = True
    clock: str | None = None


def require_place(root: Path) -> None:
    """A folder that is a model repository, or is to become one.

    Raises:
        PublishError: there is no such folder, or it holds something else.
    """
    if not root.is_dir():
        raise PublishError(
            f"{root} is no folder; give the repository with --repository, or make an empty folder first."
        )
    known = (root / FOLDER).is_dir() or (root / FUSION).is_dir() or any(root.glob(f"*/{CONFIG}"))
    if not known and any(path for path in root.iterdir() if not path.name.startswith(".")):
        raise PublishError(
            f"{root} holds files and is no model repository; give one with --repository, or an empty folder."
        )


def add_release(root: Path, bundle: Bundle, act: Act = NO_ACT) -> Added:
    """Add a release to a repository whose lock is held; nothing is written twice, and nothing becomes live.

    Args:
        root: the repository.
        bundle: has the release.
        act: why, and who signs the record as it is here.

    Raises:
        PublishError: another category has the name of one of its models, or the repository cannot be written. It is as
            it was.
    """
    target, store = Repository(root), Store(root)
    packed = _named_here(target, bundle.record)
    require_free(target, packed.category, [step.model for step in packed.steps.values()])
    with changing(root) as changes:
        added: list[str] = []
        steps = {
            name: _add_step(target, bundle, name, step, changes, added) for name, step in packed.steps.items()
        }
        draft = _as_here(store, packed, steps)
        same = [record for record in store.records(packed.category) if record.serves_as(draft)]
        if same:
            require_untouched(root, same[-1])
            if not added and is_noted(root, same[-1]):  # an earlier import may have been killed before
                return Added(same[-1], new=False, versions=())
        record = same[-1] if same else draft
        same_bytes = bool(same) or draft == bundle.record
        if not same:
            _add_record(store.record_path(record.category, record.number), bundle, record, changes)
        clock = note(changes, root, "import", record, act)
    return Added(record, new=not same, versions=tuple(added), same_bytes=same_bytes, clock=clock)


def _add_record(path: Path, bundle: Bundle, record: Record, changes: Changes) -> None:
    """The record as it is here; where that differs, a signed one is kept as it was signed, with its signature."""
    packed = path
    if record == bundle.record:
        changes.write(path, bundle.archive.read(RECORD))
    else:
        changes.write(path, record.to_json().encode())
        packed = path.with_name(path.name + PACKED)
    if bundle.signed:
        if packed != path:
            changes.write(packed, bundle.archive.read(RECORD))
        changes.write(packed.with_name(packed.name + SIGNATURE), bundle.archive.read(RECORD + SIGNATURE))


def _named_here(target: Repository, packed: Record) -> Record:
    """The release with its student under a name whose versions here take and give tensors of the same shape."""
    step, manifest = packed.steps["student"], packed.manifest
    versions, wanted = target.versions(step.model), tensors_of(manifest, "student")
    if not versions or tensors_of(target.read_manifest(step.model, versions[-1]), "student") == wanted:
        return packed
    config, model = step.parsed_config(), student_model(target, manifest)
    config.name = model
    student = step.model_copy(update={"model": model, "config": str(text_format.MessageToString(config))})
    return packed.model_copy(update={"steps": {**packed.steps, "student": student}})


def _add_step(
    target: Repository, bundle: Bundle, name: str, step: StepRecord, changes: Changes, added: list[str]
) -> StepRecord:
    """A step as this repository has it: the newest version of the same files, or one that is added."""
    if name == "decoder" and not (warm_up := target.root / step.model / WARM_UP).is_file():
        changes.write(warm_up, bundle.archive.read(WARM_UP))
    versions = target.versions(step.model)
    for version in reversed(versions):
        if _holds(target.folder(step.model, version), step.files):
            return step.model_copy(update={"version": version})
    if not bundle.signed and name != "student" and runs_a_graph(bundle.record, name):
        for version in reversed(versions):
            if files := _of_another_build(target.folder(step.model, version), step.files):
                return step.model_copy(update={"version": version, "files": files})
    version = _next(step.version, versions)
    folder = changes.folder(target.folder(step.model, version))
    for file in step.files:
        bundle.archive.extract(f"{name}/{file}", folder / file)
        if file.endswith(".onnx"):
            _require_plain(bundle, f"{name}/{file}", folder / file)
    added.append(f"{step.model}/{version}")
    return step.model_copy(update={"version": version})


def _require_plain(bundle: Bundle, name: str, path: Path) -> None:
    """Refuse a graph that would read other files, or has operators that are not ONNX's own."""
    try:
        require_plain(path)
    except OnnxError as error:
        raise PublishError(
            f"{bundle.archive.path}: its {name} {error}; nothing was imported; pack a release that this project made."
        ) from None


def _holds(folder: Path, files: dict[str, FileRecord]) -> bool:
    """Whether a folder holds these files and no others."""
    return {path.name for path in folder.iterdir()} == files.keys() and all(
        file.describes(folder / name) for name, file in files.items()
    )


def _of_another_build(folder: Path, files: dict[str, FileRecord]) -> dict[str, FileRecord] | None:
    """The files of a version that differs in its manifest alone: another category brought the same teacher first."""
    if MANIFEST not in files or not (folder / MANIFEST).is_file():
        return None
    here = {**files, MANIFEST: FileRecord.of(folder / MANIFEST)}
    return here if _holds(folder, here) else None


def _as_here(store: Store, packed: Record, steps: dict[str, StepRecord]) -> Record:
    """The record with the versions of this repository, and with its own number where that follows those here."""
    numbers = store.numbers(packed.category)
    earlier = packed.retuned_from
    if earlier in numbers and store.read(packed.category, earlier or 0).weights_id != packed.weights_id:
        earlier = None  # that number is another release here
    return packed.model_copy(
        update={
            "serial": max(packed.serial, store.next_serial()),
            "number": _next(packed.number, numbers),
            "steps": steps,
            "retuned_from": earlier,
        }
    )


def _next(packed: int, here: Sequence[int]) -> int:
    """A number as it was where it was packed, where it follows all that are here; else the next one."""
    return max([packed - 1, *here]) + 1

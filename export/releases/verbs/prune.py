"""Remove what no release needs that is live, was live before, or is kept: records, versions of models, calibrations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.entries import NO_ACT, Act, append, note
from export.releases.audit.log import AuditLog
from export.releases.audit.verification import Logged
from export.releases.changes import Changes, changing
from export.releases.files import CODE, WARM_UP, write_config
from export.releases.lock import publishing_alone
from export.releases.record import Record
from export.releases.repository import CONFIG, Repository
from export.releases.store import Store
from export.releases.switch import Served
from export.releases.verbs.server import connected

Version = tuple[str, int]  # a model and a version of it


@dataclass(frozen=True)
class Plan:
    """What goes, and what stays although nothing asked for it.

    Attributes:
        target: the repository.
        records: the releases that go.
        versions: versions of models that none of those needs that stay.
        models: models of which no version is needed; their configurations go too.
        calibrations: files of calibrations that go.
        remarks: what stays, and why, a sentence each.
        lost: releases that the audit log names and whose records are gone, by category and number.
    """

    target: Repository
    records: list[Record] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    calibrations: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lost: list[tuple[str, int]] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes that the plan gives back."""
        return sum(_bytes_of(path) for path in self.paths())

    def paths(self) -> list[Path]:
        """All that goes."""
        return [path for record in self.records for path in self.paths_of(record)]

    def paths_of(self, record: Record) -> Iterator[Path]:
        """What goes with a release, in the order in which it goes: the record last, since it names what went before.

        What several of them share goes with the last of these.
        """
        later = self.records[self.records.index(record) + 1 :]
        versions = sorted((_versions_of([record]) & set(self.versions)) - _versions_of(later))
        for model in dict.fromkeys(model for model, _ in versions):
            if model in self.models and not any(name == model for name, _ in _versions_of(later)):
                folder = self.target.root / model
                own = model in CODE  # the project's own folder: its picture to warm up with stays
                parts = (folder / CONFIG, *([] if own else [folder / WARM_UP]))
                yield from (path for path in parts if path.is_file())
        for version in versions:
            if (folder := self.target.folder(*version)).is_dir():
                yield folder
        path = Store(self.target.root).calibration_path(record.weights_id)
        if path in self.calibrations and record.weights_id not in {other.weights_id for other in later}:
            yield path
        yield from _files_of(self.target, record)

    def lines(self) -> list[str]:
        """What goes, with sizes."""
        said = [
            f"release {record.number} of {record.category} (release id {record.release_id}, published "
            f"{record.published.at[:10]})"
            for record in self.records
        ]
        for version in self.versions:
            folder = self.target.folder(*version)
            said.append(f"{version[0]}/{version[1]}: {_size(_bytes_of(folder))}")
        said += [
            f"release {number} of {category} from the audit log's: its record is gone"
            for category, number in self.lost
        ]
        return said

    def carry_out(self, act: Act) -> list[str]:
        """Remove release after release, of a repository whose lock is held; gives that the clock was set back."""
        clocks = []
        for record in self.records:
            with changing(self.target.root) as changes:
                self._write_configs(record, changes)
                clocks.append(note(changes, self.target.root, "prune", record, act))
                for path in self.paths_of(record):
                    changes.remove(path)

        with changing(self.target.root) as changes:
            served = Served.now(self.target)
            served.write(changes, served.step_configs())
        return [f"{clock}." for clock in clocks if clock]

    def _write_configs(self, record: Record, changes: Changes) -> None:
        """Triton is no longer to load the versions that go with a release."""
        for model in sorted({step.model for step in record.steps.values()} - set(self.models)):
            config = self.target.read_config(model)
            if config is None:
                continue
            gone = {number for name, number in self.versions if name == model}
            listed = config.version_policy.specific.versions
            if gone & set(listed):  # Triton would look for them at its next start
                stay = [number for number in listed if number not in gone]
                del listed[:]
                listed.extend(stay)
                write_config(self.target, config, changes)


def prune(
    root: Path, keep: int, *, url: str | None = None, apply: bool = False, act: Act = NO_ACT
) -> list[str]:
    """Remove old releases, and what only they need.

    Args:
        root: the repository.
        keep: of each category so many of its last releases stay, and always the live one and the one before.
        url: host:port of a server that serves the repository; what it has loaded stays.
        apply: remove it; else it is only said.
        act: why, and who signs the audit log.

    Returns:
        What goes or went, a line each.

    Raises:
        PublishError: a record cannot be read, so that nobody knows what it needs; the server does not answer or serves
            another repository; or the repository cannot be written. Nothing is removed then.
    """
    if not apply:
        plan = plan_pruning(root, keep, url=url)
        if not plan.records and not plan.lost:
            return [f"Nothing to remove from {root}.", *plan.remarks]
        return [
            *(f"Would remove {line}" for line in plan.lines()),
            *plan.remarks,
            f"{_counted(plan)}, {_size(plan.n_bytes)}; nothing was removed: --yes does it.",
        ]
    if not Store(root).categories():
        raise PublishError(f"{root} holds no release; there is nothing to remove.")
    with publishing_alone(root):
        plan = plan_pruning(root, keep, url=url)
        lines, n_bytes = plan.lines(), plan.n_bytes
        clocks = plan.carry_out(act)
        _remove_empty_folders(plan)
        for category, number in plan.lost:
            append(root, "prune", category, number, act.reason)
    return [
        *(f"Removed {line}" for line in lines),
        *plan.remarks,
        *(f"{clock[0].upper()}{clock[1:]}" for clock in clocks[:1]),
        f"{_counted(plan)}, {_size(n_bytes)}: removed.",
    ]


def plan_pruning(root: Path, keep: int, *, url: str | None = None) -> Plan:
    """What `prune` would remove; see there."""
    target, store = Repository(root), Store(root)
    records = {category: store.records(category) for category in store.categories()}
    in_use = _pinned(target)
    if url is not None:
        with connected(url) as server:
            server.require_repository(records, root)
            in_use |= dict.fromkeys(server.loaded_versions(), f"is loaded at {url}")
    plan, kept = Plan(target), []
    for category, all_of_it in records.items():
        live = store.live(category)
        if live is not None:
            store.read(category, live.number)  # or nobody knows what it needs
        always = {live.number, live.before, live.loaded} if live else set()
        last = {record.number for record in all_of_it[-keep:]}
        kept += [record for record in all_of_it if record.number in always | last]
    needed = _versions_of(kept)
    for record in (record for all_of_it in records.values() for record in all_of_it if record not in kept):
        used = sorted(_versions_of([record]) & in_use.keys() - needed)
        if used:
            name = f"Release {record.number} of {record.category}"
            plan.remarks.append(f"{name} stays: its {used[0][0]} {used[0][1]} {in_use[used[0]]}.")
            kept.append(record)
        else:
            plan.records.append(record)
    logged = Logged.of(AuditLog.read(root).lines()).records
    plan.lost.extend(release for release in sorted(logged) if not store.record_path(*release).is_file())
    needed = _versions_of(kept) | in_use.keys()
    plan.versions.extend(sorted(_versions_of(plan.records) - needed))
    _add_models_and_calibrations(plan, store, kept, needed)
    plan.remarks.extend(_unknown(target, _versions_of([*kept, *plan.records]) | in_use.keys()))
    return plan


def _add_models_and_calibrations(
    plan: Plan, store: Store, kept: Sequence[Record], needed: set[Version]
) -> None:
    serving = {model for model, _ in needed}
    plan.models.extend(
        model for model in dict.fromkeys(model for model, _ in plan.versions) if model not in serving
    )
    weights = {record.weights_id for record in plan.records}
    for weights_id in sorted(weights - {record.weights_id for record in kept}):
        if (path := store.calibration_path(weights_id)).is_file():
            plan.calibrations.append(path)


def _versions_of(records: Sequence[Record]) -> set[Version]:
    return {(step.model, step.version) for record in records for step in record.steps.values()}


def _pinned(target: Repository) -> dict[Version, str]:
    """The versions that an ensemble names, whoever published it, each with what is to be said of it."""
    return {
        (step.model_name, step.model_version): f"is a step of {ensemble.name}"
        for ensemble in target.ensembles()
        for step in ensemble.ensemble_scheduling.step
    }


def _unknown(target: Repository, known: set[Version]) -> Iterator[str]:
    """The versions of no record; the project's own code, which lies in version 1 of a few models, is none."""
    committed = {(model, 1) for model in CODE}
    for path in sorted(target.root.glob("*/*")):
        model, version = path.parent.name, path.name
        if model.startswith(".") or not version.isdecimal() or not any(path.iterdir()):
            continue  # an ensemble's version is an empty folder
        if (model, int(version)) not in known | committed:
            yield f"{model}/{version} stays ({_size(_bytes_of(path))}): no record names it."


def _files_of(target: Repository, record: Record) -> Iterator[Path]:
    """A record, after what lies beside it and is named after it, such as its signature."""
    path = Store(target.root).record_path(record.category, record.number)
    yield from sorted(path.parent.glob(f"{path.name}.*"))
    yield path


def _remove_empty_folders(plan: Plan) -> None:
    for model in plan.models:
        folder = plan.target.root / model
        for path in (folder / WARM_UP).parent, folder:
            if path.is_dir() and model not in CODE and not any(path.iterdir()):
                path.rmdir()


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _counted(plan: Plan) -> str:
    return f"{len(plan.records)} releases, {len(plan.versions)} versions of models"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.1f} KiB"

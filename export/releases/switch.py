"""Make a release live: what Triton reads is rendered anew, and what changed is put in place, the ensembles last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tritonclient.grpc import model_config_pb2 as pb

from export.engines.target import TargetServer
from export.errors import PublishError
from export.releases.changes import Changes
from export.releases.files import write_config, write_idle
from export.releases.record import Record
from export.releases.render import Demand, Rendering, ensemble_configs
from export.releases.repository import Repository
from export.releases.store import Live, Store
from export.tensors import ENCODED
from train.support.progress import console


@dataclass(frozen=True)
class Served:
    """What is to be live in a repository.

    Attributes:
        target: the repository.
        pointers: which release of each category is live.
        records: the live record of each category.
        before: the records that were live before and stay loaded.
        damaged: what is wrong with each category whose live release cannot be read or lacks files, a sentence. Its
            ensembles stay as they are, and so does all that they need.
    """

    target: Repository
    pointers: Mapping[str, Live]
    records: Mapping[str, Record]
    before: Mapping[str, Record]
    damaged: Mapping[str, str]

    @classmethod
    def now(cls, target: Repository) -> Served:
        """What is live; a category that is damaged is passed over, see `damaged`."""
        store, damaged = Store(target.root), dict[str, str]()
        pointers, records, before = dict[str, Live](), dict[str, Record](), dict[str, Record]()
        for category in sorted(store.known_live()):
            try:
                pointer = live_of(store, category)
                if pointer is None:
                    continue
                pointers[category] = pointer
                records[category] = _readable(target, category, pointer.number)
            except PublishError as error:
                damaged[category] = error.message
                continue
            if spare := _spare(store, category, pointer):
                before[category] = spare
        return cls(target, pointers, records, before, damaged)

    def require_sound(self, category: str) -> None:
        """What is live of a category can be read and is whole, or nothing is.

        Raises:
            PublishError: it is damaged.
        """
        if category in self.damaged:
            raise PublishError(self.damaged[category])

    def tell_damaged(self, *, but: str) -> None:
        """Say on stderr which other categories are damaged, a line each."""
        for category, sentence in self.damaged.items():
            if category != but:
                console.print(
                    f"Warning: {sentence} Nothing of {category!r} was changed.",
                    style="yellow",
                    markup=False,
                    soft_wrap=True,
                )

    def without_spares(self) -> Served:
        """The same with nothing loaded but what is live, as after a server's start."""
        pointers = {category: pointer.without_spare() for category, pointer in self.pointers.items()}
        return replace(self, pointers=pointers, before={})

    def switched_to(self, record: Record) -> Served:
        """The same with another release of its category live, or one that is published for the first time."""
        category, store = record.category, Store(self.target.root)
        pointer, live = self.pointers.get(category), self.records.get(category)
        for name, other in self.records.items():
            # The fusion finds a calibration by this id alone. Earlier versions gave the same weights one id under every
            # name: one of the two would be judged by the other's thresholds.
            if name != category and other.weights_id == record.weights_id:
                raise PublishError(
                    f"Release {record.number} of {category!r} was exported by an earlier version, which gave it the id "
                    f"of the same weights of {name!r}, live in {self.target.root}: one threshold would serve both; "
                    f"export {category!r} again with `make export CATEGORY={category}`."
                )
        if pointer is None:
            pointer = Live(record.number)
        else:
            same_files = live is not None and live.steps == record.steps
            pointer = pointer.switched_to(record.number, same_files=same_files)
        before = {name: kept for name, kept in self.before.items() if name != category}
        if spare := _spare(store, category, pointer):
            before[category] = spare
        return replace(
            self,
            pointers={**self.pointers, category: pointer},
            records={**self.records, category: record},
            before=before,
            damaged={name: fault for name, fault in self.damaged.items() if name != category},
        )

    def step_configs(
        self, server: TargetServer | None = None, *, joining: Sequence[Record] = ()
    ) -> dict[str, pb.ModelConfig]:
        """The configurations of all steps, and of those of releases that are still to become live.

        Args:
            server: what loads TensorRT's engines, where that is known.
            joining: further releases whose steps are loaded.
        """
        records, spare = list(self.records.values()), list(self.before.values())
        return Rendering(self.target, records, spare, server, joining).step_configs()

    def unused_models(self, others: Iterable[Record]) -> list[str]:
        """The models of other releases that no live one needs, no spare one, and no ensemble without a record."""
        kept = _models([*self.records.values(), *self.before.values()])
        own = {name for category in self.records for name in (category, category + ENCODED)}
        foreign = (ensemble for ensemble in self.target.ensembles() if ensemble.name not in own)
        kept |= {step.model_name for ensemble in foreign for step in ensemble.ensemble_scheduling.step}
        return sorted(_models(others) - kept)

    def write(self, changes: Changes, configs: Mapping[str, pb.ModelConfig]) -> bool:
        """Write what is not there yet: the steps, then calibrations and pointers, the ensembles last.

        Args:
            changes: take it.
            configs: of the steps, by model; see `step_configs`.

        Returns:
            Whether anything was not there yet.
        """
        store = Store(self.target.root)
        write_idle(self.target, configs, changes)
        changed = [write_config(self.target, config, changes) for config in configs.values()]
        for record in self.records.values():
            live = replace(record.calibration, release_id=record.release_id)
            changed.append(changes.write(store.calibration_path(record.weights_id), live.to_json().encode()))
        for category, record in self.records.items():
            pointer = self.pointers[category].to_json().encode()
            changed.append(changes.write(store.live_path(category), pointer))
            changed += [write_config(self.target, config, changes) for config in ensemble_configs(record)]
        return any(changed)


def _models(records: Iterable[Record]) -> set[str]:
    return {step.model for record in records for step in record.steps.values()}


def live_of(store: Store, category: str) -> Live | None:
    """Which release of a category is live; None where none ever was.

    Raises:
        PublishError: one was, and the file that says which is gone or damaged.
    """
    pointer = store.live(category)
    if pointer is None and category in store.known_live():
        raise PublishError(
            f"{store.live_path(category)}, which says which release of {category!r} is live, is gone; promote one with "
            "`python -m deploy promote`."
        )
    return pointer


def _readable(target: Repository, category: str, number: int) -> Record:
    """A live record that configurations can be rendered from, and whose versions are there."""
    record = Store(target.root).read(category, number)
    for step in record.steps.values():
        step.parsed_config()
    require_folders(target, record)
    return record


def _spare(store: Store, category: str, pointer: Live) -> Record | None:
    """The release that stays loaded; None where there is none, or none that can be read: it is only to go back to."""
    if pointer.loaded not in store.numbers(category):
        return None
    with suppress(PublishError):
        return store.read(category, pointer.loaded or 0)
    return None


def demands_of_others(target: Repository, category: str) -> list[Demand]:
    """What all that is served, but a category, asks of the steps that are shared."""
    served = Served.now(target)
    own = {name for known in (*served.records, category) for name in (known, known + ENCODED)}
    foreign = [ensemble for ensemble in target.ensembles() if ensemble.name not in own]
    records = [record for name, record in served.records.items() if name != category]
    return [*map(Demand.of_record, records), *map(Demand.of_ensemble, foreign)]


def gone(target: Repository, record: Record) -> list[str]:
    """The versions of a release that the repository no longer holds, by their folders."""
    folders = (target.folder(step.model, step.version) for step in record.steps.values())
    return [str(folder) for folder in folders if not folder.is_dir()]


def require_folders(target: Repository, record: Record) -> None:
    """The versions of a release are there.

    Raises:
        PublishError: one is not; the sentence names it.
    """
    if missing := gone(target, record):
        raise PublishError(
            f"Release {record.number} of {record.category!r} needs {missing[0]}, which is gone; restore it, or publish "
            "that release again."
        )


def require_whole(target: Repository, record: Record) -> None:
    """Every file of a release is there, and what its record says.

    Raises:
        PublishError: one is not; the sentence names it.
    """
    require_folders(target, record)
    for step in record.steps.values():
        folder = target.folder(step.model, step.version)
        for name, file in step.files.items():
            if not file.describes(folder / name):
                raise PublishError(
                    f"{folder / name} is not the file of release {record.number} of {record.category!r}; restore it, "
                    "or publish that release again."
                )

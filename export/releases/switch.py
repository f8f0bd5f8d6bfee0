"""Make a release live: what Triton reads is rendered anew, and what changed is put in place, the ensembles last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Served:
    """What is to be live in a repository.

    Attributes:
        target: the repository.
        pointers: which release of each category is live.
        records: the live record of each category.
        before: the records that were live before and stay loaded.
    """

    target: Repository
    pointers: Mapping[str, Live]
    records: Mapping[str, Record]
    before: Mapping[str, Record]

    @classmethod
    def now(cls, target: Repository) -> Served:
        """What is live.

        Raises:
            PublishError: a record or a pointer cannot be read.
        """
        store = Store(target.root)
        pointers = store.all_live()
        records = {category: store.read(category, live.number) for category, live in pointers.items()}
        # Whose folders somebody removed is served no longer.
        whole = {category: record for category, record in records.items() if not gone(target, record)}
        before = {
            category: store.read(category, pointers[category].loaded or 0)
            for category in whole
            if pointers[category].loaded in store.numbers(category)
        }
        return cls(target, pointers, whole, before)

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
        if pointer.loaded in store.numbers(category):
            before[category] = store.read(category, pointer.loaded or 0)
        return replace(
            self,
            pointers={**self.pointers, category: pointer},
            records={**self.records, category: record},
            before=before,
        )

    def step_configs(
        self, server: TargetServer | None = None, *, joining: Sequence[Record] = ()
    ) -> dict[str, pb.ModelConfig]:
        """The configurations of all steps, and of those of releases that are still to become live.

        Args:
            server: what loads TensorRT's engines, where that is known.
            joining: further releases whose steps are loaded.
        """
        records = [*self.records.values(), *joining]
        return Rendering(self.target, records, list(self.before.values()), server).step_configs()

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


def require_whole(target: Repository, record: Record) -> None:
    """Every file of a release is there, and what its record says.

    Raises:
        PublishError: one is not; the sentence names it.
    """
    if missing := gone(target, record):
        raise PublishError(
            f"Release {record.number} of {record.category!r} needs {missing[0]}, which is gone; restore it, or publish "
            "that release again."
        )
    for step in record.steps.values():
        folder = target.folder(step.model, step.version)
        for name, file in step.files.items():
            if not file.describes(folder / name):
                raise PublishError(
                    f"{folder / name} is not the file of release {record.number} of {record.category!r}; restore it, "
                    "or publish that release again."
                )

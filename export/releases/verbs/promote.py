"""Another release becomes live while the server serves: loaded and probed, then switched to; the old one drains."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.releases.audit.entries import NO_ACT, Act, note
from export.releases.audit.verification import require_untouched
from export.releases.changes import changing
from export.releases.files import write_config
from export.releases.lock import publishing_alone
from export.releases.record import Record
from export.releases.render import runs_a_graph
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.server import RunningServer, connected
from export.releases.versions import platform_of
from train.support.category_names import check_category_name


def promote(root: Path, category: str, number: int, *, url: str | None = None, act: Act = NO_ACT) -> str:
    """Make a release live.

    Args:
        root: the repository.
        category: the product.
        number: of the release.
        url: host:port of a server that serves the repository; None leaves it to the server's next start.
        act: why, and who signs it.

    Returns:
        One line that says what is live.

    Raises:
        PublishError: there is no such release, its record was changed, a file of it is not what it was, a step is
            served to other categories in another way, or the server cannot load it or gives other scores. What was
            live stays live.
    """
    with publishing_alone(root):
        record = find_record(root, category, number)
        return put_live(root, record, url=url, act=act)


def rollback(root: Path, category: str, *, url: str | None = None, act: Act = NO_ACT) -> str:
    """Make the release live that was before; see `promote`.

    Raises:
        PublishError: there was none before; or see `promote`.
    """
    check_category_name(category)
    with publishing_alone(root):
        live = Store(root).live(category)
        if live is None or live.before is None:
            raise PublishError(
                f"No release of {category!r} was live before in {root}; promote one by its number."
            )
        record = find_record(root, category, live.before)
        return put_live(root, record, url=url, what="rollback", act=act)


def find_record(root: Path, category: str, number: int) -> Record:
    """A record of a category.

    Raises:
        DataError: no category can have this name.
        PublishError: there is none; the sentence lists those there are.
    """
    check_category_name(category)
    store = Store(root)
    numbers = store.numbers(category)
    if number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        others = "" if numbers else ", ".join(store.categories())
        known = f"; there are releases of {others}" if others else ""
        raise PublishError(f"{root} has no release {number} of {category!r}; it has {there}{known}.")
    return store.read(category, number)


def put_live(root: Path, record: Record, *, url: str | None, what: str = "promote", act: Act = NO_ACT) -> str:
    """Make a release live whose repository's lock is held; see `promote`."""
    target = Repository(root)
    require_untouched(root, record)
    require_whole(target, record)
    served = Served.now(target)
    require_shared(served, record)
    switch = Switch(target, served, served.switched_to(record), record, what, act)
    if url is None:
        with changing(root) as changes:
            switch.after.write(changes, switch.after.step_configs())
            clock = note(changes, root, what, record, act)
        said = f"Live: {_named(record)}; a running server takes it at its next start, or at once with --url"
    else:
        with connected(url) as server:
            clock = switch.perform(server)
        said = f"Live at {url}: {_named(record)}"
    return f"{said}; {clock}." if clock else f"{said}."


@dataclass(frozen=True)
class Switch:
    """From what is live to another release of one category.

    Attributes:
        target: the repository.
        before, after: what is live before and after.
        record: the release that is to become live.
        what, act: for the audit log.
    """

    target: Repository
    before: Served
    after: Served
    record: Record
    what: str
    act: Act

    def perform(self, server: RunningServer) -> str | None:
        """Load, probe, switch, and let go of what is no longer needed; gives what `note` gives.

        Raises:
            PublishError: the server cannot load the release, or gives other scores; what was live stays live.
        """
        live = self.before.records.get(self.record.category)
        beside = live is None or fit_beside(live, self.record)
        joined = self.before.step_configs(joining=[self.record]) if beside else self.after.step_configs()
        clock = None
        try:
            if (
                not beside
            ):  # of another image size, say: one configuration gives the shapes of all versions of a model
                clock = self._switch(server, joined)
            self._load_steps(server, joined)
            server.probe(self.record, self.target.root)
            if beside:
                clock = self._switch(server, joined)
        except BaseException as error:
            self._return(server)
            if not isinstance(error, PublishError):
                raise
            raise PublishError(f"{error.message.rstrip('.')}; {self._stays()}.") from None
        self._write_steps(server, self.after.step_configs())
        return clock

    def _load_steps(self, server: RunningServer, configs: Mapping[str, pb.ModelConfig]) -> None:
        changed = self._write_steps(server, configs)
        for step in self.record.steps.values():
            if step.model not in changed and not server.is_ready(step.model, step.version):
                server.load(step.model)

    def _write_steps(self, server: RunningServer, configs: Mapping[str, pb.ModelConfig]) -> list[str]:
        """Write configurations and load the models whose configuration changed; gives their names."""
        with changing(self.target.root) as changes:
            changed = [name for name, config in configs.items() if write_config(self.target, config, changes)]
        for name in changed:
            server.load(name)
        return changed

    def _switch(self, server: RunningServer, joined: Mapping[str, pb.ModelConfig]) -> str | None:
        with changing(self.target.root) as changes:
            self.after.write(changes, joined)
            clock = note(changes, self.target.root, self.what, self.record, self.act)
        server.load_category(self.record.category)
        return clock

    def _return(self, server: RunningServer) -> None:
        """Put back what was live, on disk and in the server, as far as that goes."""
        root, category = self.target.root, self.record.category
        if category not in self.before.records:
            return
        switched = Store(root).live(category) != self.before.pointers[category]
        with changing(root) as changes:
            self.before.write(changes, self.before.step_configs())
            if switched:
                why = Act(f"{self.what} of release {self.record.number} failed", self.act.signer)
                note(changes, root, "return", self.before.records[category], why)
        with suppress(PublishError):  # said already: the server does not answer
            server.load_category(self.record.category)  # and the steps whose configurations changed

    def _stays(self) -> str:
        live = self.before.records.get(self.record.category)
        return "nothing was live before" if live is None else f"{_named(live)} stays live"


def require_shared(served: Served, record: Record) -> None:
    """Steps that other categories are served over are served to them in the same way.

    Raises:
        PublishError: one is on another platform for another category, which the sentence names.
    """
    wanted = _platforms(record)
    for category, other in served.records.items():
        if category == record.category:
            continue
        for model, there in _platforms(other).items():
            if (asked := wanted.get(model, there)) != there:
                raise PublishError(
                    f"{category} is served over {model} on platform {there}, and release {record.number} of "
                    f"{record.category!r} wants {asked}; a repository serves a model one way: use another one."
                )


def _platforms(record: Record) -> dict[str, str]:
    """What runs each graph of a release, by model."""
    return {
        step.model: platform_of(step.parsed_config())
        for name, step in record.steps.items()
        if runs_a_graph(record, name)
    }


def fit_beside(live: Record, other: Record) -> bool:
    """Whether the steps of two releases can be loaded at the same time where they are versions of one model."""
    theirs = {step.model: step.parsed_config() for step in live.steps.values()}
    for step in other.steps.values():
        if (there := theirs.get(step.model)) is None:
            continue
        wanted = step.parsed_config()
        same = (there.backend, list(there.input), list(there.output)) == (
            wanted.backend,
            list(wanted.input),
            list(wanted.output),
        )
        if not same or (wanted.backend == "tensorrt" and there.max_batch_size != wanted.max_batch_size):
            return False
    return True


def _named(record: Record) -> str:
    return (
        f"release {record.number} of {record.category} (release id {record.release_id}, threshold "
        f"{record.calibration.image_threshold:.4g})"
    )

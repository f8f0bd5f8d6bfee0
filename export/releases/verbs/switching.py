"""One category's switch in a running server: load, probe, switch, and let go; or put back exactly what was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from export.errors import PublishError
from export.releases.audit.entries import Act, note
from export.releases.changes import changing
from export.releases.files import write_config
from export.releases.record import Record
from export.releases.repository import CONFIG, Repository
from export.releases.store import Store
from export.releases.switch import Served
from export.releases.verbs.server import RunningServer
from export.tensors import ENCODED


@dataclass(frozen=True)
class Earlier:
    """What a switch finds, to be put back where it fails.

    Attributes:
        files: each file that it writes with its content; None where there was none.
        loaded: the models that the server had in memory.
    """

    files: Mapping[Path, bytes | None]
    loaded: frozenset[str]


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

    @property
    def clash(self) -> str | None:
        """Why the release cannot be loaded beside the one that is live; None where it can."""
        live = self.before.records.get(self.record.category)
        return None if live is None else clash(live, self.record)

    def perform(self, server: RunningServer) -> list[str]:
        """Load, probe, switch, and let go of what is no longer needed; gives remarks, without a full stop.

        Raises:
            PublishError: the server cannot load the release, or gives other scores; all is as it was.
        """
        try:
            server.require_holds(self.record, self.target.root)
            earlier = self._earlier(server)
        except PublishError as error:
            raise self._refusal(error) from None
        beside, clock = self.clash is None, None
        joined = self.before.step_configs(joining=[self.record]) if beside else self.after.step_configs()
        try:
            if not beside:  # one configuration gives backend and shapes of all versions of a model
                clock = self._switch(server, joined)
            self._load_steps(server, joined)
            server.probe(self.record, self.target.root)
            if beside:
                clock = self._switch(server, joined)
        except BaseException as error:
            not_back = self._return(server, earlier)
            if not isinstance(error, PublishError):
                raise
            raise self._refusal(error, not_back) from None
        return [remark for remark in (clock, self._let_go(server, earlier)) if remark]

    def _earlier(self, server: RunningServer) -> Earlier:
        root, category, store = self.target.root, self.record.category, Store(self.target.root)
        models = {step.model for record in self.after.records.values() for step in record.steps.values()}
        paths = [
            *(root / model / CONFIG for model in sorted(models)),
            store.calibration_path(self.record.weights_id),
            store.live_path(category),
            *(root / ensemble / CONFIG for ensemble in (category, category + ENCODED)),
        ]
        files = {path: path.read_bytes() if path.is_file() else None for path in paths}
        return Earlier(files, frozenset(model for model, _ in server.loaded_versions()))

    def _load_steps(self, server: RunningServer, configs: Mapping[str, pb.ModelConfig]) -> None:
        changed = self._write_steps(server, configs)
        for step in self.record.steps.values():
            if step.model not in changed and not server.is_ready(step.model, step.version):
                server.load(step.model)
            if not server.is_ready(step.model, step.version):
                raise PublishError(
                    f"The server at {server.url} loads {step.model} without version {step.version}: it serves another "
                    f"repository than {self.target.root}; name the right one with --url"
                )

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
        server.require_serves(self.record, self.target.root)
        return clock

    def _let_go(self, server: RunningServer, earlier: Earlier) -> str | None:
        """Free what no release needs that is live or was just before; gives what did not work: the release is live."""
        category = self.record.category
        others = [
            served[category] for served in (self.before.records, self.before.before) if category in served
        ]
        try:
            self._write_steps(server, self.after.step_configs())
            for model in self.after.unused_models(others):
                if model in earlier.loaded:
                    server.unload(model)
        except PublishError as error:
            reason = error.message.rstrip(".")
            return f"what is no longer needed may stay in memory until the server is started again: {reason}"
        return None

    def _return(self, server: RunningServer, earlier: Earlier) -> str | None:
        """Put back what was, on disk and in the server; gives what stands against it on disk."""
        try:
            changed = self._put_back(earlier)
        except PublishError as error:
            return error.message.rstrip(".")
        category = self.record.category
        ensembles = (category, category + ENCODED)
        for model in (*ensembles, *(step.model for step in self.record.steps.values())):
            if model not in earlier.loaded:
                _quietly(server.unload, model)
            elif model in ensembles or self.target.root / model / CONFIG in changed:
                _quietly(server.load, model)  # of an ensemble the steps that changed too
        return None

    def _put_back(self, earlier: Earlier) -> list[Path]:
        """Put the files back; gives those that had changed."""
        root, category = self.target.root, self.record.category
        live_path = Store(root).live_path(category)
        changed = [path for path, content in earlier.files.items() if _content(path) != content]
        ensembles = (category, category + ENCODED)  # their folders hold nothing else
        with changing(root) as changes:
            for path in changed:
                if (content := earlier.files[path]) is not None:
                    changes.write(path, content)
            for path in reversed(changed):  # the ensembles first
                if earlier.files[path] is None:
                    changes.remove(path.parent if path.parent.name in ensembles else path)
            if live_path in changed:
                why = Act(f"{self.what} of release {self.record.number} failed", self.act.signer)
                note(changes, root, "return", self.before.records.get(category, self.record), why)
        return changed

    def _refusal(self, error: PublishError, not_back: str | None = None) -> PublishError:
        live, category = self.before.records.get(self.record.category), self.record.category
        if not_back is not None:
            stays = f"what was changed could not be put back ({not_back}); the next command puts it right"
        elif live is not None:
            stays = f"{named(live)} stays live"
        elif category in self.before.damaged:
            stays = f"nothing of {category!r} was changed"
        else:
            stays = f"nothing of {category!r} was live before, and nothing is"
        return PublishError(f"{error.message.rstrip('.')}; {stays}.")


def clash(live: Record, other: Record) -> str | None:
    """Why the steps of two releases cannot be loaded at the same time where they are versions of one model."""
    theirs = {step.model: step.parsed_config() for step in live.steps.values()}
    for step in other.steps.values():
        if (there := theirs.get(step.model)) is None:
            continue
        wanted = step.parsed_config()
        if there.backend != wanted.backend:
            return f"{step.model} would run on {wanted.backend}, and runs on {there.backend}"
        if (list(there.input), list(there.output)) != (list(wanted.input), list(wanted.output)):
            return f"{step.model} would take and give other tensors"
        if wanted.backend == "tensorrt" and there.max_batch_size != wanted.max_batch_size:
            return f"{step.model} would take batches of up to {wanted.max_batch_size}, and takes {there.max_batch_size}"
    return None


def named(record: Record) -> str:
    """A release in a sentence."""
    return (
        f"release {record.number} of {record.category} (release id {record.release_id}, threshold "
        f"{record.calibration.image_threshold:.4g})"
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _quietly(call: Callable[[str], None], model: str) -> None:
    with suppress(PublishError):  # what failed is said already
        call(model)

"""Another release becomes live while the server serves: loaded and probed, then switched to; the old one drains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from export.errors import PublishError
from export.releases.audit.entries import NO_ACT, Act, note
from export.releases.audit.verification import require_untouched
from export.releases.changes import changing
from export.releases.lock import publishing_alone
from export.releases.ownership import require_free
from export.releases.record import Record
from export.releases.repository import Repository
from export.releases.store import Store
from export.releases.switch import Served, require_whole
from export.releases.verbs.server import connected
from export.releases.verbs.switching import Switch, named
from export.releases.versions import platform_of
from export.tensors import ENCODED
from train.support.category_names import check_category_name


def promote(
    root: Path,
    category: str,
    number: int,
    *,
    url: str | None = None,
    act: Act = NO_ACT,
    allow_interruption: bool = False,
) -> str:
    """Make a release live.

    Args:
        root: the repository.
        category: the product.
        number: of the release.
        url: host:port of a server that serves the repository; None leaves it to the server's next start.
        act: why, and who signs it.
        allow_interruption: also where requests may fail meanwhile, since the server cannot load the release beside the
            one that is live: one on another platform.

    Returns:
        One line that says what is live.

    Raises:
        PublishError: there is no such release, its record was changed, a file of it is not what it was, a step is
            served to other categories in another way, requests might fail and nobody allowed that, or the server
            cannot load it or gives other scores. What was live stays live.
    """
    with publishing_alone(root):
        record = find_record(root, category, number)
        return put_live(root, record, url=url, act=act, allow_interruption=allow_interruption)


def rollback(
    root: Path,
    category: str,
    *,
    url: str | None = None,
    act: Act = NO_ACT,
    allow_interruption: bool = False,
) -> str:
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
        return put_live(
            root, record, url=url, what="rollback", act=act, allow_interruption=allow_interruption
        )


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


def put_live(
    root: Path,
    record: Record,
    *,
    url: str | None,
    what: str = "promote",
    act: Act = NO_ACT,
    allow_interruption: bool = False,
) -> str:
    """Make a release live whose repository's lock is held; see `promote`."""
    target = Repository(root)
    require_untouched(root, record)
    require_whole(target, record)
    served = Served.now(target)
    served.tell_damaged(but=record.category)
    if record.category not in served.records:  # the folders of one that is live are known to be its own
        require_free(target, record.category, [step.model for step in record.steps.values()])
    require_shared(served, record)
    switch = Switch(target, served, served.switched_to(record), record, what, act)
    if url is None:
        with changing(root) as changes:
            switch.after.write(changes, switch.after.step_configs())
            clock = note(changes, root, what, record, act)
        remarks = [clock] if clock else []
        said = f"Live: {named(record)}; a running server takes it at its next start, or at once with --url"
    else:
        if switch.clash and not allow_interruption:
            raise PublishError(
                f"Release {record.number} of {record.category!r} cannot be loaded beside the one that is live "
                f"({switch.clash}): requests of {record.category!r} may fail until the server has loaded it in that "
                "one's place; give --allow-interruption, or stop the server first."
            )
        with connected(url) as server:
            remarks = switch.perform(server)
        said = f"Live at {url}: {named(record)}"
    return "; ".join([said, *remarks]) + "."


def require_shared(served: Served, record: Record) -> None:
    """Steps that other categories are served over are served to them in the same way.

    Raises:
        PublishError: one is on another platform for another category, which the sentence names.
    """
    asked = {step.model: platform_of(step.parsed_config()) for step in record.steps.values()}
    for category, model, there in _platforms_of_others(served, record):
        if asked.get(model, there) != there:
            raise PublishError(
                f"{category} is served over {model} on platform {there}, and release {record.number} of "
                f"{record.category!r} wants {asked[model]}; a repository serves a model one way: publish into another "
                "one."
            )


def _platforms_of_others(served: Served, record: Record) -> Iterator[tuple[str, str, str]]:
    """Category, model and platform of all steps of other categories; of one without a record as they are configured."""
    for category, other in served.records.items():
        if category != record.category:
            for step in other.steps.values():
                yield category, step.model, platform_of(step.parsed_config())
    known = {*served.records, record.category}
    for model in dict.fromkeys(step.model for step in record.steps.values()):
        config = served.target.read_config(model)
        for ensemble in served.target.ensembles_over(model) if config is not None else []:
            if (category := ensemble.name.removesuffix(ENCODED)) not in known:
                yield category, model, platform_of(config)

"""Keep no more than a number of categories in memory: when another is loaded, the least recently used is unloaded.

Clients load the category that they need by Triton's own model control. This module only unloads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from deploy.errors import ServerError
from deploy.model_control import ModelControl
from deploy.repository import ENCODED, SHARED_MODELS

MIN_LOADED_S = 2.0  # a client has this time to ask a category that it has loaded


def loaded_categories(ready: set[str], known: set[str]) -> set[str]:
    """The known categories of which an ensemble is among the models that are ready."""
    return {category for category in known if category in ready or category + ENCODED in ready}


def own_models(categories: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """The models of each category that no other one uses, such as its ensembles and its student."""
    users = Counter(model for models in categories.values() for model in set(models))
    return {
        category: {model for model in models if users[model] == 1 and model not in SHARED_MODELS}
        for category, models in categories.items()
    }


def last_used_s(
    own: Collection[str], asked_s: Mapping[str, float], *, probed_s: tuple[float, float] | None = None
) -> float:
    """When a category was last asked, by the models that are its own; seconds since 1970, 0 for never.

    From the one moment of `probed_s` to the other the supervisor itself asked it, which is no use of it.

    Its ensembles alone do not say: Triton recreates an ensemble, and forgets when it was asked, whenever it reloads one
    of its steps, such as the fusion after a new release.
    """
    first_s, last_s = probed_s or (1.0, 0.0)
    return max(
        (when for model, when in asked_s.items() if model in own and not first_s <= when <= last_s), default=0
    )


def too_many(
    used_s: Mapping[str, float], *, seen_s: Mapping[str, float], now_s: float, keep: int
) -> list[str]:
    """The categories to unload, least recently used first.

    A category stays for at least MIN_LOADED_S after it was loaded. Times are seconds since 1970.

    Args:
        used_s: when each loaded category was last asked, or seen loaded.
        seen_s: when each was first seen loaded.
        now_s: the time.
        keep: categories that may stay.
    """
    longest_first = sorted(used_s, key=lambda category: used_s[category])
    leaving = longest_first[: max(0, len(used_s) - keep)]
    return [category for category in leaving if now_s - seen_s[category] >= MIN_LOADED_S]


def models_of(own: Sequence[str], steps_of: Mapping[str, Sequence[str]]) -> list[str]:
    """What to unload of a category: its `own` ensembles, then the steps that no other loaded ensemble uses."""
    elsewhere = {step for name, steps in steps_of.items() if name not in own for step in steps}
    # Committed backends stay, whoever uses them: they cost little, and the next category needs them.
    staying = elsewhere | SHARED_MODELS
    return [*own, *dict.fromkeys(step for name in own for step in steps_of[name] if step not in staying)]


def category_ensembles(control: ModelControl, category: str) -> tuple[str, str]:
    """Names of a category's two ensembles; a step has none, and is not loaded or unloaded by itself.

    Raises:
        ServerError: the server does not answer, or its repository does not hold the category.
    """
    models = {entry["name"] for entry in control.index()}
    if {category, category + ENCODED} <= models:
        return category, category + ENCODED
    known = sorted(name for name in models if name + ENCODED in models)
    raise ServerError(
        f"{category!r} is no category in the repository of the server at {control.http_url}; it holds "
        f"{', '.join(known) or 'none'}."
    )


def unload_category(control: ModelControl, category: str) -> list[str]:
    """Unload a category's ensembles and what they alone use; returns the names of these models.

    Requests in flight are answered first: an ensemble's request holds its steps until it ends.

    Raises:
        ServerError: the server does not answer, does not have the category, or is loading another one, whose steps
            would seem to be unused.
    """
    ensembles = category_ensembles(control, category)
    index = control.index()
    if loading := sorted({entry["name"] for entry in index if entry.get("state") == "LOADING"}):
        raise ServerError(
            f"{control.http_url} is loading {', '.join(loading)}; unload {category} when that is done."
        )
    ready = {entry["name"] for entry in index if entry.get("state") == "READY"}
    own = [name for name in ensembles if name in ready]
    if not own:
        raise ServerError(f"category {category} is not loaded at {control.http_url}.")
    leaving = models_of(own, {name: control.steps(name) for name in sorted(ready)})
    for model in leaving:
        control.unload(model)
    return leaving


@dataclass(frozen=True)
class CategoryLimit:
    """How many categories stay in memory.

    Attributes:
        categories: those of the repository, and the models of each.
        most: so many stay loaded, and one more between the loading of a new one and the unloading of an old one.
    """

    categories: Mapping[str, Sequence[str]]
    most: int


class Janitor:
    """Unloads categories beyond a number; `deploy.supervision.supervisor` asks it to, again and again."""

    def __init__(self, control: ModelControl, limit: CategoryLimit, *, tell: Callable[..., None]) -> None:
        """Look after the server that `control` controls.

        `tell` is told what is unloaded, as `deploy.supervision.events.Events.tell`.
        """
        self._control = control
        self._own = own_models(limit.categories)
        self._max_categories = limit.most
        self._tell = tell
        self._seen_s: dict[str, float] = {}
        self._used_s: dict[str, float] = {}

    def tidy(self, *, now_s: float, probed_s: Mapping[str, tuple[float, float]] | None = None) -> list[str]:
        """Look once, and unload categories beyond the number; returns these.

        Args:
            now_s: the time, seconds since 1970.
            probed_s: from when to when the supervisor itself last asked a category.

        Raises:
            ServerError: the server does not answer.
        """
        index = self._control.index()
        if any(entry.get("state") == "LOADING" for entry in index):
            return []  # the steps of a category seem to be unused until its ensembles are loaded
        ready = {entry["name"] for entry in index if entry.get("state") == "READY"}
        loaded = loaded_categories(ready, set(self._own))
        asked_s = self._control.last_asked_s()
        self._seen_s = {name: self._seen_s.get(name, now_s) for name in loaded}
        self._used_s = {
            name: max(
                last_used_s(self._own[name], asked_s, probed_s=(probed_s or {}).get(name)),
                self._used_s.get(name, now_s),
            )
            for name in loaded
        }
        leaving = too_many(self._used_s, seen_s=self._seen_s, now_s=now_s, keep=self._max_categories)
        for category in leaving:
            models = unload_category(self._control, category)
            self._tell(
                "category_unloaded",
                f"Unloaded {', '.join(models)}: {category} was last used {now_s - self._used_s[category]:.0f} s ago, "
                f"and --max-categories is {self._max_categories}.",
                category=category,
                models=models,
            )
        return leaving

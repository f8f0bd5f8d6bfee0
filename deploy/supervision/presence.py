"""Is the repository there? A file system that is gone for a while is not one that nothing is published in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


class Presence:
    """Follows whether a repository holds models.

    Attributes:
        published: the models that it held when it was looked at last.
        away: whether it held none then.
    """

    def __init__(self, repository: Path, published: Iterable[str], *, tell: Callable[..., None]) -> None:
        """Begin with a repository that holds models; `tell` is told when it goes and comes back."""
        self._repository = repository
        self._tell = tell
        self.published = set(published)
        self.away = False

    def is_away(self) -> bool:
        """Look: whether it holds no model at all, as when it is renamed or its file system is gone."""
        try:
            self.published = {config.parent.name for config in self._repository.glob("*/config.pbtxt")}
        except OSError:  # a fault of our own, no descriptors say: as it was
            return self.away
        away = not self.published
        if away and not self.away:
            self._tell(
                "repository_away",
                f"{self._repository} holds no model: it is away, or empty. What is loaded serves on; nothing is mended "
                "and no server is started until it is back.",
            )
        elif self.away and not away:
            self._tell("repository_back", f"{self._repository} is back.")
        self.away = away
        return away

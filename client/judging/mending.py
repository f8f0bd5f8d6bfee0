"""What is done before the next try of a request, where waiting alone does not help."""

from __future__ import annotations

import time
from collections.abc import Callable

from tritonclient.utils import InferenceServerException

from client.core.faults import is_region_unknown, is_unloaded
from client.judging.shared_memory import SharedRegion

MOST_LOADS = 3  # of one request's category; others may want its place in memory too


class Mending:
    """Loads a category that was just unloaded, and makes shared memory known to a server that was started again."""

    def __init__(self, load: Callable[[], None] | None, region: SharedRegion | None) -> None:
        """For one request; `load` loads its category, and None forbids that."""
        self._load, self._region = load, region
        self._loads = 0
        self._registered = False
        self._next: Callable[[], float] | None = None

    def can_mend(self, error: InferenceServerException) -> bool:
        """Whether `mend` will remove what the last try failed for."""
        if is_unloaded(error) and self._load is not None and self._loads < MOST_LOADS:
            self._loads += 1
            self._next = self._load_category
        elif is_region_unknown(error) and self._region is not None and not self._registered:
            self._registered = True
            self._next = self._register
        return self._next is not None

    def mend(self) -> float:
        """Do it, if there is something to do; gives the seconds that count as no time of the request.

        Raises:
            InferenceServerException: it failed.
        """
        mend, self._next = self._next, None
        return 0.0 if mend is None else mend()

    def _load_category(self) -> float:
        began_s = time.perf_counter()
        if self._load is not None:
            self._load()
        return time.perf_counter() - began_s  # loading has a deadline of its own

    def _register(self) -> float:
        if self._region is not None:
            self._region.register()
        return 0.0

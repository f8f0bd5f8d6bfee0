"""How many requests may be on their way at a time."""

from __future__ import annotations


class Window:
    """How many requests may be on their way: fewer, once the server refuses some."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._sent = 0
        self._narrowed_at = 0

    def next_number(self) -> int:
        """The number of a request that is being sent, from 1 on."""
        self._sent += 1
        return self._sent

    def narrow(self, number: int) -> None:
        """Halve the window, because request `number` was refused; once for all that were on their way together."""
        if number > self._narrowed_at:
            self.size = max(1, self.size // 2)
            self._narrowed_at = self._sent

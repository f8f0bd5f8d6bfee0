"""A connection to the server, lent to threads; one that is replaced is closed when the last of them is done with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from client.judging.connection import JudgeClient


class Connection:
    """A category's client, made when somebody first asks; threads may share it."""

    def __init__(self, connect: Callable[[], JudgeClient]) -> None:
        """Connect by `connect`, as often as need be."""
        self._connect = connect
        self._judge: JudgeClient | None = None
        self._connecting, self._guard = threading.Lock(), threading.Lock()
        self._lent: Counter[JudgeClient] = Counter()

    @property
    def current(self) -> JudgeClient | None:
        """The client, where there is one; for what it says of its category."""
        return self._judge

    @contextmanager
    def lent(self) -> Iterator[JudgeClient]:
        """The client for a while, during which nobody closes it.

        Raises:
            ClientError: see `JudgeClient`.
        """
        with self._connecting:
            if self._judge is None:
                self._judge = self._connect()
            judge = self._judge
            with self._guard:
                self._lent[judge] += 1
        try:
            yield judge
        finally:
            with self._guard:
                self._lent[judge] -= 1
                done = not self._lent[judge]
                if done:
                    del self._lent[judge]
                done = done and judge is not self._judge
            if done:
                judge.close()

    def renew(self) -> JudgeClient:
        """A new client, which knows the release that is live by now; where there cannot be one, the old one stays.

        Raises:
            ClientError: see `JudgeClient`.
        """
        made = self._connect()
        with self._connecting, self._guard:
            before, self._judge = self._judge, made
            idle = before is not None and before not in self._lent
        if before is not None and idle:
            before.close()
        return made

    def close(self) -> None:
        """Close the client, for good."""
        with self._connecting, self._guard:
            before, self._judge = self._judge, None
        if before is not None:
            before.close()

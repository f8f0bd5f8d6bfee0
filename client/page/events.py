"""Server-sent events: every open page hears of every picture that arrives, is judged or is marked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

MOST_WAITING = (
    500  # events that a slow page may be behind; then it connects again, and asks for what it missed
)
BEAT_S = 15.0  # a line a page ignores, by which both sides see that the connection lives


class Hub:
    """Hands events on to all that listen; any thread may publish."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._guard = threading.Lock()
        self._closed = False

    def publish(self, kind: str, content: Any, *, change: int | None = None) -> None:
        """Tell all that listen; `change` is what a page names when it connects again."""
        event = encode(kind, content, change=change)
        with self._guard:
            if self._loop is not None and not self._closed:
                with suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._hand_on, event)

    async def listen(self) -> AsyncIterator[str]:
        """Events as text, from now on and until the page is closed here or there."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING)
        with self._guard:
            self._loop = asyncio.get_running_loop()
            if self._closed:
                return
            self._listeners.add(queue)
        try:
            yield ": listening\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), BEAT_S)
                except TimeoutError:
                    yield ": beat\n\n"
                    continue
                if event is None:
                    return
                yield event
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """End every connection."""
        with self._guard:
            self._closed = True
            if self._loop is not None:
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._end_all)

    def _hand_on(self, event: str) -> None:
        for queue in tuple(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                self._end(queue)

    def _end_all(self) -> None:
        for queue in tuple(self._listeners):
            self._end(queue)

    @staticmethod
    def _end(queue: asyncio.Queue[str | None]) -> None:
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(None)


def encode(kind: str, content: Any, *, change: int | None = None) -> str:
    """An event as it goes over the wire."""
    number = "" if change is None else f"id: {change}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(content)}\n\n"

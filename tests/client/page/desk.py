"""A page without a server, for tests: its parts over a folder, and pictures in them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from client.page.access.sessions import Access
from client.page.access.tokens import Role, Tokens
from client.page.app import build_app
from client.page.events import Hub
from client.page.inspecting.station import Station
from client.page.state import State
from client.page.store import inspections
from client.page.store.database import Database
from client.page.store.inspections import Judged, NewInspection

RELEASE = 8_765_432_109_876_543_210  # more than a browser's numbers hold
TOKENS = Tokens("viewer-token-0123456789", "editor-token-0123456789")
ORIGIN = {"origin": "http://127.0.0.1"}


def png(size: tuple[int, int] = (8, 6), colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def judged(score: float = 0.5, **changes: Any) -> Judged:
    values: dict[str, Any] = {
        "score": score,
        "threshold": 1.0,
        "anomalous": score > 1,
        "release_id": RELEASE,
        "latency_ms": 2.5,
        "synthetic": False,
        "defects": [{"area": 12, "peak": 2.0}] if score > 1 else [],
    }
    return Judged(**(values | changes))


def add(database: Database, score: float | None = 0.5, *, picture: bool = False, **changes: Any) -> int:
    """A picture, judged unless its score is None."""
    place = None
    if picture:
        place = f"{time.monotonic_ns()}.png"
        (database.pictures / place).write_bytes(png())
    values: dict[str, Any] = {
        "category": "pill",
        "name": "part.png",
        "source": "dropped",
        "arrived_at": time.time(),
        "picture": place,
        "thumbnail": b"jpeg",
        "width": 8,
        "height": 6,
    }
    verdict = None if score is None else changes.pop("verdict", judged(score))
    number = inspections.add(database, NewInspection(**(values | changes)), verdict)
    assert number is not None
    return number


def make_state(
    folder: Path, *, tokens: Tokens | None = None, role: Role = Role.EDITOR, **changes: Any
) -> State:
    database, hub = Database(folder), Hub()
    stations = {
        name: Station(name, url="127.0.0.1:9", timeout_s=1, database=database, hub=hub)
        for name in ("pill", "cable")
    }
    return State(database, hub, stations, Access(tokens, role, secure=False), "127.0.0.1:9", **changes)


@contextmanager
def client_of(state: State) -> Iterator[TestClient]:
    """A browser's requests, from the page itself."""
    app = build_app(state, loopback=True)
    try:
        with TestClient(app, base_url="http://127.0.0.1", headers=ORIGIN, follow_redirects=False) as client:
            yield client
    finally:
        state.database.close()


MAP = np.linspace(0, 3, 64, dtype=np.float32).reshape(8, 8)

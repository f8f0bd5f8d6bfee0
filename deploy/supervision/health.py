"""Whether all of it serves, for load balancers: tritonserver 2.51 calls itself ready while a step's process is dead.

`/v2/health/ready` answers 200 or 503, with the reasons as JSON; `/v2/health/live` 200 while the supervisor works. The
paths are those of Triton, so that a probe is moved here by its port alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deploy.errors import PortError

LIVE_S = 180.0  # a turn of the supervisor may load a large model


class Health:
    """What the supervisor last said; asked from other threads."""

    def __init__(self) -> None:
        """Not ready yet."""
        self._lock = threading.Lock()
        self._faults: dict[str, str] = {"server": "the server is being started"}
        self._left_out: dict[str, str] = {}
        self._beat_s = time.monotonic()

    def fault(self, what: str, reason: str) -> None:
        """Not ready, because of `what`, until that is `mended`."""
        with self._lock:
            self._faults[what] = reason

    def mended(self, what: str) -> None:
        """That is no reason any more."""
        with self._lock:
            self._faults.pop(what, None)

    def beat(self, left_out: dict[str, str]) -> None:
        """The supervisor works; these models are left out, and the others serve."""
        with self._lock:
            self._beat_s = time.monotonic()
            self._left_out = left_out

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Whether all of it serves, and what a caller wants to know."""
        with self._lock:
            return not self._faults, {
                "ready": not self._faults,
                "faults": dict(self._faults),
                "left_out": dict(self._left_out),
            }

    def live(self) -> bool:
        """Whether the supervisor has had a turn lately."""
        with self._lock:
            return time.monotonic() - self._beat_s < LIVE_S


@contextmanager
def health_endpoint(health: Health, host: str, port: int | None) -> Iterator[str | None]:
    """Answer over HTTP at `port` of `host` (0: a free one) within the block; the address, None without a port.

    Raises:
        PortError: the port cannot be listened on.
    """
    if port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/health/ready":
                ready, body = health.ready()
                self._answer(body, ok=ready)
            elif self.path == "/v2/health/live":
                live = health.live()
                self._answer({"live": live}, ok=live)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, body: dict[str, object], *, ok: bool) -> None:
            text = json.dumps(body).encode()
            self.send_response(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """A probe each second is no news."""

    try:
        endpoint = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise PortError(
            f"port {port} of {host} cannot be listened on ({error.strerror}); give another with --health-port."
        ) from None
    with endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{endpoint.server_address[1]}/v2/health/ready"
        finally:
            endpoint.shutdown()

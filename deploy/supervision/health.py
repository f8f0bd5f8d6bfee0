"""Whether all of it serves, for load balancers: tritonserver 2.51 calls itself ready while a step's process is dead.

`/v2/health/ready` answers 200 or 503, with the reasons as JSON; `/v2/health/live` 200 while the supervisor works. The
paths are those of Triton, so that a probe is moved here by its port alone. `/metrics` says the same to Prometheus, and
counts what the supervisor did: Triton's own metrics know of neither.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from deploy.errors import PortError

LIVE_S = 180.0  # a turn of the supervisor may load a large model
READY_S = 30.0  # any other turn is shorter
REQUEST_S = 5.0  # a probe says what it wants within this
# Counted from 0, so that the first of each is seen as a rise.
COUNTED = ("server_died", "server_hangs", "start_failed", "model_broken", "model_failed", "model_left_out")
MOST_CONNECTIONS = 16  # at a time: more would take the descriptors that the supervisor itself needs


class Health:
    """What the supervisor last said; asked from other threads."""

    def __init__(self) -> None:
        """Not ready yet."""
        self._lock = threading.Lock()
        self._faults: dict[str, str] = {"server": "the server is being started"}
        self._left_out: dict[str, str] = {}
        self._events: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._beat_s = time.monotonic()
        self._patience_s = READY_S

    def fault(self, what: str, reason: str) -> None:
        """Not ready, because of `what`, until that is `mended`."""
        with self._lock:
            self._faults[what] = reason

    def mended(self, what: str) -> None:
        """That is no reason any more."""
        with self._lock:
            self._faults.pop(what, None)

    def count(self, event: str) -> None:
        """The supervisor has told an event of this kind."""
        with self._lock:
            self._events[event] += 1

    def beat(self, left_out: dict[str, str]) -> None:
        """The supervisor works; these models are left out, and the others serve."""
        with self._lock:
            self._beat_s = time.monotonic()
            self._left_out = left_out

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within the block the supervisor may load a model, which may take long."""
        with self._lock:
            self._beat_s, self._patience_s = time.monotonic(), LIVE_S
        try:
            yield
        finally:
            with self._lock:
                self._beat_s, self._patience_s = time.monotonic(), READY_S

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Whether all of it serves and somebody sees to it, and what a caller wants to know."""
        faults, left_out = self._found()
        return not faults, {"ready": not faults, "faults": faults, "left_out": left_out}

    def metrics(self) -> str:
        """The same as Prometheus reads it, and how often each event was told; reasons are for people."""
        faults, left_out = self._found()
        with self._lock:
            events = dict(self._events)
        families = (
            ("astmfr_ready", "gauge", "Whether all of it serves.", {"": int(not faults)}),
            (
                "astmfr_fault",
                "gauge",
                "What keeps it from being ready.",
                _labelled("what", dict.fromkeys(faults, 1)),
            ),
            (
                "astmfr_left_out",
                "gauge",
                "Models that do not load.",
                _labelled("model", dict.fromkeys(left_out, 1)),
            ),
            (
                "astmfr_events_total",
                "counter",
                "Kinds of events in the events file.",
                _labelled("event", events),
            ),
        )
        lines = []
        for name, kind, text, samples in families:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {value}" for labels, value in samples.items()]
        return "\n".join(lines) + "\n"

    def _found(self) -> tuple[dict[str, str], dict[str, str]]:
        """What is wrong, and which models are left out; each with its reason."""
        with self._lock:
            faults, silent_s = dict(self._faults), time.monotonic() - self._beat_s
            if silent_s > self._patience_s and "server" not in faults:  # a start takes as long as it takes
                faults.setdefault("supervisor", f"the supervisor has done nothing for {silent_s:.0f} s")
            return faults, dict(self._left_out)

    def live(self) -> bool:
        """Whether the supervisor has had a turn lately."""
        with self._lock:
            return time.monotonic() - self._beat_s < LIVE_S


def _labelled(label: str, values: dict[str, int]) -> dict[str, int]:
    """Values by their label, as Prometheus writes it; names of models hold nothing that would need escaping."""
    return {f'{{{label}="{name}"}}': value for name, value in sorted(values.items())}


class Endpoint(ThreadingHTTPServer):
    """Answers a bounded number of connections at a time: beyond it, a new one ends the oldest."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: list[socket.socket] = []
        self._open_lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own; end the oldest one where there are too many."""
        with self._open_lock:
            oldest = self._open.pop(0) if len(self._open) >= MOST_CONNECTIONS else None
            self._open.append(request)
            if oldest is not None:
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread sees the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection is at its end."""
        with self._open_lock, suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may go away at any time."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


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
        timeout = REQUEST_S

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/v2/health/ready":
                ready, body = health.ready()
                self._answer(body, ok=ready)
            elif path == "/v2/health/live":
                live = health.live()
                self._answer({"live": live}, ok=live)
            elif path == "/metrics":
                self._send(health.metrics(), "text/plain; version=0.0.4; charset=utf-8", ok=True)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, body: dict[str, object], *, ok: bool) -> None:
            self._send(json.dumps(body), "application/json", ok=ok)

        def _send(self, body: str, content_type: str, *, ok: bool) -> None:
            text = body.encode()
            self.send_response(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """A probe each second is no news."""

    try:
        endpoint = Endpoint((host, port), Handler)
    except OSError as error:
        raise PortError(
            f"port {port} of {host} cannot be listened on ({error.strerror}); give another with --health-port."
        ) from None
    with endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            # "Every address" is nothing that a client can connect to.
            reachable = "127.0.0.1" if host == "0.0.0.0" else host
            yield f"http://{reachable}:{endpoint.server_address[1]}/v2/health/ready"
        finally:
            endpoint.shutdown()

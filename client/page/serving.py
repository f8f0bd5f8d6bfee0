"""The page's process: stations and feeds started, the address listened to, and all of it ended in order."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn

from client.core.errors import RequestError
from client.page.app import build_app
from client.page.events import Hub
from client.page.inspecting.cleaning import Cleaner
from client.page.inspecting.feeds import Feed
from client.page.inspecting.station import Station
from client.page.inspecting.watches import FolderWatch
from client.page.options import Options
from client.page.state import State
from client.page.store.database import Database

GRACE_S = 5  # for answers on their way when the page is stopped


class Server(uvicorn.Server):
    """Ends the streams of events when it is stopped: they would keep it until the last browser is closed."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the page in order; uvicorn would raise them again, before anything is closed."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C or SIGTERM."""
        self._hub.close()
        super().handle_exit(sig, frame)


@contextmanager
def running_parts(options: Options) -> Iterator[State]:
    """Everything but the address: the database, a station a category, and what is followed.

    Raises:
        StorageError: the data folder is in use, or nothing can be written there.
        ClientError: a folder cannot be watched.
    """
    with ExitStack() as parts:
        database = Database(options.data)
        parts.callback(database.close)
        hub = Hub()
        stations = {
            category: Station(
                category, url=options.url, timeout_s=options.timeout_s, database=database, hub=hub
            )
            for category in options.categories
        }
        state = State(
            database, hub, stations, options.access, options.url, options.repository, dict(options.bases)
        )
        state.tell_of_others()
        for station in stations.values():
            parts.callback(station.close)
            station.start()
        watches = [
            FolderWatch(category, folder, state, timeout_s=options.timeout_s)
            for category, folder in options.feeds.watched
        ]
        for watch in watches:
            parts.callback(watch.close)
            watch.start()
        feeds = [Feed(journal, state) for journal in options.feeds.journals]
        feeds += [Feed(watch.journal, state, own=True) for watch in watches]
        for feed in feeds:
            parts.callback(feed.close)
            feed.start()
        if options.keep is not None:
            cleaner = Cleaner(options.keep, state)
            parts.callback(cleaner.close)
            cleaner.start()
        yield state


def serve(options: Options, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        options: what it shows, and to whom.
        announce: is told the address once it can be opened.

    Raises:
        RequestError: the address cannot be listened on.
        StorageError, ClientError: see `running_parts`.
    """
    listening = _listen(options)
    with listening, running_parts(options) as state:
        config = uvicorn.Config(
            build_app(state, loopback=options.place.loopback),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=options.tls and str(options.tls[0]),
            ssl_keyfile=options.tls and str(options.tls[1]),
        )
        if options.tls:
            config.load()
            assert config.ssl is not None
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        announce(f"{'https' if options.tls else 'http'}://{shown}:{port}/")
        Server(config, state.hub).run(sockets=[listening])


def _listen(options: Options) -> socket.socket:
    place = options.place
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM
        )
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # who comes before all is ready waits, and is not refused
        return listening
    except OSError as error:
        raise RequestError(
            f"The page cannot listen on {place.host}:{place.port} ({error.strerror or error}); give another place "
            "with --listen."
        ) from None

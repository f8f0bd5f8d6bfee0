"""MQTT, against Debian's mosquitto."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from client.core.errors import RequestError
from client.watching.sinks.mqtt import Mqtt
from tests.client.watching.sinks.told import told
from tests.deploy.conftest import comes_true
from tests.products import unused_url

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto")


@contextmanager
def broker(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A broker that keeps the messages of who is away over its own restart."""
    folder.mkdir(exist_ok=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\n"
    )
    with subprocess.Popen([str(MOSQUITTO), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            assert comes_true(lambda: answers(port), within_s=10)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Subscriber:
    """Hears a topic and all below it; its session is kept while it is away."""

    def __init__(self, topic: str) -> None:
        self.heard: list[tuple[str, str]] = []
        self._topic = topic

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        subscribed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False)
        client.on_message = lambda _client, _user, told: self.heard.append(
            (told.topic, told.payload.decode())
        )
        client.on_connect = lambda *_: client.subscribe(f"{self._topic}/#", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            assert subscribed.wait(10)
            yield
        finally:
            client.disconnect()
            client.loop_stop()

    def numbers(self) -> list[int]:
        return [
            json.loads(text)["data"]["number"] for topic, text in self.heard if not topic.endswith("/status")
        ]

    def status(self) -> list[str]:
        return [text for topic, text in self.heard if topic.endswith("/status")]


@needs_mosquitto
def test_a_broker_that_is_down_and_back_loses_nothing(tmp_path: Path) -> None:
    url = unused_url()
    port, subscriber = int(url.partition(":")[2]), Subscriber("line/7")
    sink = Mqtt(f"mqtt://{url}/line/7", category="pill", client_id="watch", password=None, ca=None)
    with told(tmp_path, sink) as telling:
        telling.record("a.png")
        assert telling.says("cannot be reached (Connection refused). What is for it waits in the journal.")
        with broker(port, tmp_path / "broker"), subscriber.listening(port):
            assert telling.has_delivered_all()
            telling.record("b.png", "c.png")
            assert telling.has_delivered_all()
            assert comes_true(lambda: subscriber.numbers() == [1, 2, 3], within_s=5)
        telling.record(*(f"d{number}.png" for number in range(150)))
        with broker(port, tmp_path / "broker"):
            assert telling.has_delivered_all()
            with subscriber.listening(port):
                assert comes_true(lambda: len(set(subscriber.numbers())) == 153, within_s=10)
                assert subscriber.status()[-1] == "online"
                telling.delivery.close(within_s=1)
                assert comes_true(lambda: subscriber.status()[-1] == "offline", within_s=5)
    assert sorted(set(subscriber.numbers())) == list(range(1, 154))
    first = json.loads(next(text for topic, text in subscriber.heard if topic == "line/7"))
    assert first["data"]["id"] == f"{telling.journal.id}-1"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/x", "The broker's address is"),
        ("mqtt:///x", "The broker's address is"),
        ("mqtt://host/a/#", r"no \+ or #"),
        ("mqtt://user:word@host/x", "seen by everybody"),
    ],
)
def test_no_such_address(url: str, words: str) -> None:
    if "#" in url:
        url = url.replace("#", "%23")
    with pytest.raises(RequestError, match=words):
        Mqtt(url, category="pill", client_id="x", password=None, ca=None)

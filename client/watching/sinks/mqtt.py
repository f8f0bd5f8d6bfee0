"""Messages to an MQTT broker with QoS 1: the broker acknowledges each before the journal counts it as delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from client.core.errors import RequestError
from client.watching.sinks.message import Message, SinkDown

TIMEOUT_S = 10.0  # to connect, and for the broker's word on a batch
PORTS = {"mqtt": 1883, "mqtts": 8883}
ONLINE, OFFLINE = "online", "offline"
KEEP_ALIVE_S = 30


class Mqtt:
    """Publishes to one topic; `TOPIC/status` says `online` or `offline`, retained, after a kill too (the last will)."""

    def __init__(
        self, url: str, *, category: str, client_id: str, password: str | None, ca: Path | None
    ) -> None:
        """Publish to `mqtt://[USER@]HOST[:PORT][/TOPIC]`, or `mqtts://` with TLS; without a topic to `astmfr/CATEGORY`.

        Raises:
            RequestError: no such address can be.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        topic = unquote(parts.path).strip("/") or f"astmfr/{category}"
        if parts.scheme not in PORTS or not parts.hostname or any(sign in topic for sign in "+#\0"):
            raise RequestError(
                f"The broker's address is {url!r}; expected mqtt://HOST/TOPIC or mqtts://HOST/TOPIC, and no + or # in "
                "the topic."
            )
        if parts.password is not None:
            raise RequestError(
                "A password in an address is seen by everybody; give it in the file of --secrets."
            )
        self._host, self._port = parts.hostname, port or PORTS[parts.scheme]
        self._topic, self._client_id = topic, client_id
        self._user, self._password = unquote(parts.username or "") or None, password
        self._tls, self._ca = parts.scheme == "mqtts", ca
        self.name = f"The MQTT broker {self._host}:{self._port} ({topic})"
        self._client: mqtt.Client | None = None

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Publish all messages, and yield each that the broker has acknowledged, in their order."""
        client = self._connected()
        try:
            sent = [
                (message.number, client.publish(self._topic, message.to_json(), qos=1))
                for message in messages
            ]
            until_s = time.monotonic() + TIMEOUT_S
            for number, info in sent:
                info.wait_for_publish(max(0.01, until_s - time.monotonic()))
                if not info.is_published():
                    raise SinkDown(f"{self.name} did not take a message within {TIMEOUT_S:g} s.")
                yield number
        except (ValueError, RuntimeError) as error:  # the connection ended, or paho's own queue is full
            self._drop()
            raise SinkDown(f"{self.name} cannot be reached ({error}).") from None
        except SinkDown:
            self._drop()
            raise

    def close(self) -> None:
        """Say `offline`, and end the connection."""
        if self._client is not None and self._client.is_connected():
            self._client.publish(f"{self._topic}/status", OFFLINE, qos=1, retain=True).wait_for_publish(1)
        self._drop()

    def _drop(self) -> None:
        """End the connection; what it had not delivered is published anew by the next one."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> mqtt.Client:
        if self._client is not None and self._client.is_connected():
            return self._client
        self._drop()
        self._client = client = self._new_client()
        answered, refusals = threading.Event(), list[str]()

        def on_connect(_client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                refusals.append(str(reason))
            answered.set()

        client.on_connect = on_connect
        try:
            client.connect(self._host, self._port, keepalive=KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            self._drop()
            raise SinkDown(
                f"{self.name} cannot be reached ({getattr(error, 'strerror', None) or error})."
            ) from None
        client.loop_start()
        if not answered.wait(TIMEOUT_S) or refusals:
            self._drop()
            reason = (
                f"refused the connection: {refusals[0]}"
                if refusals
                else f"did not answer within {TIMEOUT_S:g} s"
            )
            raise SinkDown(f"{self.name} {reason}.")
        client.publish(f"{self._topic}/status", ONLINE, qos=1, retain=True)
        return client

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, reconnect_on_failure=False
        )
        client.connect_timeout = TIMEOUT_S
        client.max_inflight_messages_set(100)
        client.will_set(f"{self._topic}/status", OFFLINE, qos=1, retain=True)
        if self._user is not None:
            client.username_pw_set(self._user, self._password)
        if self._tls:
            try:
                client.tls_set(ca_certs=None if self._ca is None else str(self._ca))
            except (OSError, ValueError) as error:
                raise SinkDown(
                    f"{self.name}: the authority's file {self._ca} cannot be used ({error})."
                ) from None
        return client

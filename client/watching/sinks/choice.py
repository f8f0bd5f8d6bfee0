"""The sinks that a command's options name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.core.errors import RequestError

if TYPE_CHECKING:
    from client.watching.sinks.message import Sink

STANDARD_OUTPUT = Path("-")
WEBHOOK_SECRET, MQTT_PASSWORD, OPCUA_PASSWORD = "webhook", "mqtt", "opcua"  # names in the file of secrets


@dataclass(frozen=True)
class Sinks:
    """Where verdicts go besides the journal; None: not there.

    Attributes:
        jsonl: a file of JSON lines, or `-` for standard output.
        webhook: an address to post to.
        mqtt, mqtt_ca: a broker's address, and the authority's certificates.
        opcua, opcua_node: an OPC UA server's address, and the id of its variables.
        secrets: values by name: `webhook`, `mqtt`, `opcua`.
    """

    jsonl: Path | None = None
    webhook: str | None = None
    mqtt: str | None = None
    mqtt_ca: Path | None = None
    opcua: str | None = None
    opcua_node: str = "ns=2;s=Inspection.{}"
    secrets: Mapping[str, str] | None = None


def make_sinks(chosen: Sinks, *, category: str, journal_id: str) -> list[Sink]:
    """The sinks, none of them connected yet.

    Raises:
        RequestError: an address or a secret that cannot be, or a library that is not installed.
        StorageError: a file that cannot be written.
    """
    from client.watching.sinks.jsonl import JsonlFile, JsonlStream

    secrets = chosen.secrets or {}
    sinks: list[Sink] = []
    if chosen.jsonl is not None:
        sinks.append(JsonlStream() if chosen.jsonl == STANDARD_OUTPUT else JsonlFile(chosen.jsonl))
    try:
        if chosen.webhook is not None:
            from client.watching.sinks.webhook import Webhook

            sinks.append(Webhook(chosen.webhook, secret=secrets.get(WEBHOOK_SECRET)))
        if chosen.mqtt is not None:
            from client.watching.sinks.mqtt import Mqtt

            sinks.append(
                Mqtt(
                    chosen.mqtt,
                    category=category,
                    client_id=f"astmfr-{journal_id}",
                    password=secrets.get(MQTT_PASSWORD),
                    ca=chosen.mqtt_ca,
                )
            )
        if chosen.opcua is not None:
            from client.watching.sinks.opcua import OpcUa

            sinks.append(OpcUa(chosen.opcua, nodes=chosen.opcua_node, password=secrets.get(OPCUA_PASSWORD)))
    except ModuleNotFoundError as error:
        raise RequestError(missing_extra(error)) from None
    return sinks


def missing_extra(error: ModuleNotFoundError) -> str:
    """That a library of `watch` is not installed."""
    return f"This needs {error.name}, which is not installed; install it with `pip install 'astmfr[watch]'`."

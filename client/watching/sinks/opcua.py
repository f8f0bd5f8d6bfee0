"""The last verdict in the variables of an OPC UA server, which is what a PLC has: this is a client of it.

A PLC reads a few variables in each of its cycles. So each verdict is written into the same ones, all together, and
`Number`, which rises, last: when it changes, the others are there. With a variable `Taken`, into which the PLC copies
`Number`, the next verdict waits until it has; without it, a PLC that is slower than the pictures misses some.
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from asyncua import ua
from asyncua.sync import Client
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from client.console import printable
from client.core.errors import RequestError
from client.watching.sinks.message import Message, SinkDown

TIMEOUT_S = 5.0  # of a request
TAKEN_WITHIN_S = 5.0  # after that the PLC counts as down, and the number is waited for again
POLL_S = 0.02
NUMBER, TAKEN = "Number", "Taken"
# Without these, a PLC would take a picture that was not judged for a good one, or could not tell two verdicts apart.
REQUIRED = ("Judged", "Anomalous", NUMBER)
OPTIONAL = ("Score", "Threshold", "ReleaseId", "Id", "Image", "Category", "RecordedAt")
FAULTS = (UaError, OSError, concurrent.futures.TimeoutError, TimeoutError, ConnectionError)

logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what goes wrong is told as an event, once


class OpcUa:
    """Writes verdicts into the variables of a server."""

    def __init__(self, url: str, *, nodes: str, password: str | None) -> None:
        """Write to `opc.tcp://[USER@]HOST:PORT`.

        Args:
            url: the server.
            nodes: the id of a variable, `{}` for its name: `ns=2;s=Inspection.{}`.
            password: of the user in `url`.

        Raises:
            RequestError: no such address or id can be.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise RequestError(f"The OPC UA server's address is {url!r}; expected opc.tcp://HOST:PORT.")
        if parts.password is not None:
            raise RequestError(
                "A password in an address is seen by everybody; give it in the file of --secrets."
            )
        try:
            for name in (*REQUIRED, *OPTIONAL, TAKEN):
                ua.NodeId.from_string(nodes.replace("{}", name))
        except (UaError, ValueError):
            nodes = ""
        if "{}" not in nodes:
            raise RequestError(
                "The id of the OPC UA variables is no such id; expected one with {} for a variable's name, as "
                "ns=2;s=Inspection.{}."
            )
        place = f"{parts.hostname}:{port or 4840}"
        self._url = f"opc.tcp://{place}{parts.path}"
        self._user, self._password = unquote(parts.username or "") or None, password
        self._ids = nodes
        self.name = f"The OPC UA server {place} ({nodes})"
        self._client: Client | None = None
        self._nodes: dict[str, tuple[Any, ua.VariantType]] = {}

    def deliver(self, messages: Sequence[Message]) -> Iterator[int]:
        """Write one verdict after the other."""
        for message in messages:
            try:
                client = self._connected()
                self._write(client, message)
                taken = self._wait_until_taken(message.number)
            except FAULTS as error:
                self._drop()
                raise SinkDown(
                    f"{self.name} cannot be written to ({str(error) or type(error).__name__})."
                ) from None
            if not taken:
                raise SinkDown(
                    f"{self.name}: the PLC has not set {TAKEN} to {message.number} in {TAKEN_WITHIN_S:g} s."
                )
            yield message.number

    def close(self) -> None:
        """End the connection."""
        self._drop()

    def _write(self, client: Client, message: Message) -> None:
        values = _values(message)
        names = [name for name in self._nodes if name not in (NUMBER, TAKEN)]
        for batch in (names, [NUMBER]):
            client.write_values(
                [self._nodes[name][0] for name in batch],
                [_data_value(values[name], self._nodes[name][1]) for name in batch],
            )

    def _wait_until_taken(self, number: int) -> bool:
        if TAKEN not in self._nodes:
            return True
        node, kind = self._nodes[TAKEN]
        until_s = time.monotonic() + TAKEN_WITHIN_S
        while node.read_value() != _converted(number, kind):
            if time.monotonic() > until_s:
                return False
            time.sleep(POLL_S)
        return True

    def _connected(self) -> Client:
        if self._client is not None:
            return self._client
        client = Client(self._url, timeout=TIMEOUT_S, sync_wrapper_timeout=2 * TIMEOUT_S)
        self._client = client
        if self._user is not None:
            client.set_user(self._user)
            client.set_password(self._password or "")
        client.connect()
        self._nodes = {}
        for name in (*OPTIONAL, *REQUIRED, TAKEN):
            node = client.get_node(self._ids.replace("{}", name))
            try:
                kind = node.read_data_type_as_variant_type()
            except UaStatusCodeError:
                if name in REQUIRED:
                    raise UaError(f"it has no variable {self._ids.replace('{}', name)}") from None
                continue
            if kind not in FITTING[name]:
                expected = " or ".join(each.name for each in FITTING[name])
                raise UaError(
                    f"the type of {self._ids.replace('{}', name)} is {kind.name}, expected {expected}"
                )
            self._nodes[name] = node, kind
        return client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.disconnect()
        except FAULTS:
            pass
        finally:
            if client.tloop.is_alive():
                client.tloop.stop()


def _values(message: Message) -> dict[str, Any]:
    """What each variable gets; a picture that was not judged is anomalous, and has no score."""
    prediction = message.prediction
    return {
        "Judged": prediction is not None,
        "Anomalous": prediction is None or prediction.anomalous,
        "Score": math.nan if prediction is None else prediction.score,
        "Threshold": math.nan if prediction is None else prediction.threshold,
        "ReleaseId": 0 if prediction is None else prediction.release_id,
        "Id": message.id,
        "Image": printable(str(message.image)),
        "Category": message.category,
        "RecordedAt": datetime.fromisoformat(message.recorded_at),
        NUMBER: message.number,
    }


def _data_value(value: Any, kind: ua.VariantType) -> ua.DataValue:
    # Without times: many a PLC takes none.
    return ua.DataValue(ua.Variant(_converted(value, kind), kind))


WIDTHS = {
    ua.VariantType.Byte: 8,
    ua.VariantType.UInt16: 16,
    ua.VariantType.UInt32: 32,
    ua.VariantType.UInt64: 64,
    ua.VariantType.SByte: 7,
    ua.VariantType.Int16: 15,
    ua.VariantType.Int32: 31,
    ua.VariantType.Int64: 63,
}
FLOATS, TEXT = (ua.VariantType.Float, ua.VariantType.Double), (ua.VariantType.String,)
FITTING: dict[str, Collection[ua.VariantType]] = {
    "Judged": (ua.VariantType.Boolean, *WIDTHS),
    "Anomalous": (ua.VariantType.Boolean, *WIDTHS),
    "Score": FLOATS,
    "Threshold": FLOATS,
    "ReleaseId": WIDTHS,
    "Id": TEXT,
    "Image": TEXT,
    "Category": TEXT,
    "RecordedAt": (ua.VariantType.DateTime, *TEXT),
    NUMBER: WIDTHS,
    TAKEN: WIDTHS,
}


def _converted(value: Any, kind: ua.VariantType) -> Any:
    """A value as a variable's type has it; a number that is too large for an integer begins at 0 again."""
    if kind in WIDTHS:
        return int(value) % (1 << WIDTHS[kind])
    if isinstance(value, datetime):
        return value.replace(tzinfo=None) if kind is ua.VariantType.DateTime else value.isoformat()
    return value

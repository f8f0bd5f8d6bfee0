"""OPC UA, against asyncua's server, as which a PLC stands here."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from asyncua import ua
from asyncua.sync import Server

from client.core.errors import RequestError
from client.watching.sinks import opcua
from client.watching.sinks.message import SinkDown
from client.watching.sinks.opcua import OpcUa
from tests.client.samples import RELEASE
from tests.client.watching.sinks.told import message
from tests.deploy.conftest import comes_true
from tests.products import unused_url

NODES = "ns=2;s=Inspection.{}"
VARIABLES: dict[str, ua.VariantType] = {
    "Judged": ua.VariantType.Boolean,
    "Anomalous": ua.VariantType.Boolean,
    "Number": ua.VariantType.UInt16,
    "Score": ua.VariantType.Float,
    "Threshold": ua.VariantType.Double,
    "ReleaseId": ua.VariantType.Int64,
    "Id": ua.VariantType.String,
    "Image": ua.VariantType.String,
    "RecordedAt": ua.VariantType.DateTime,
}
EMPTY = {ua.VariantType.Boolean: False, ua.VariantType.String: ""}


class Plc:
    """asyncua's server on a free port, which can be away for a while; making one takes seconds."""

    def __init__(self) -> None:
        self.url = f"opc.tcp://{unused_url()}"
        self._server = Server()
        self._server.set_endpoint(self.url)
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self._server.register_namespace("line")
        self._server.start()

    def add(self, group: str, variables: dict[str, ua.VariantType]) -> dict[str, Any]:
        """Variables that a client may write; gives their nodes by name."""
        nodes = {}
        for name, kind in variables.items():
            value = datetime(2000, 1, 1) if kind is ua.VariantType.DateTime else EMPTY.get(kind, 0)
            node_id = ua.NodeId(f"{group}.{name}", 2)
            nodes[name] = self._server.nodes.objects.add_variable(node_id, name, value, kind)
            nodes[name].set_writable()
        return nodes

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody answers for the length of a `with` block."""
        server: Any = self._server
        server.tloop.post(server.aio_obj.stop())
        try:
            yield
        finally:
            server.tloop.post(server.aio_obj.start())

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def plc() -> Iterator[Plc]:
    running = Plc()
    yield running
    running.stop()


def test_a_plc_gets_each_verdict_and_is_found_again_after_it_was_away(plc: Plc) -> None:
    nodes = plc.add("Inspection", VARIABLES)
    sink = OpcUa(plc.url, nodes="ns=2;s=Inspection.{}", password=None)
    assert list(sink.deliver([message(1), message(65_538, anomalous=True)])) == [1, 65_538]
    values = {name: node.read_value() for name, node in nodes.items()}
    assert (values["Judged"], values["Anomalous"], values["Number"]) == (True, True, 2)
    assert (values["Score"], values["ReleaseId"]) == (0.5, RELEASE)
    assert values["Id"] == "journal-65538"
    assert values["Image"] == "drop/t\\udcfc.png"
    list(sink.deliver([message(3, judged=False)]))
    assert (nodes["Judged"].read_value(), nodes["Anomalous"].read_value()) == (False, True)
    assert math.isnan(nodes["Score"].read_value())
    with plc.away():
        with pytest.raises(SinkDown, match="cannot be written to"):
            list(sink.deliver([message(4)]))
        with pytest.raises(SinkDown, match="cannot be written to"):
            list(sink.deliver([message(4)]))
    list(sink.deliver([message(4)]))
    assert nodes["Number"].read_value() == 4
    sink.close()


def test_with_taken_the_next_verdict_waits_for_the_plc(plc: Plc, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = plc.add("Handshake", {**VARIABLES, "Taken": ua.VariantType.UInt16})
    monkeypatch.setattr(opcua, "TAKEN_WITHIN_S", 0.2)
    sink = OpcUa(plc.url, nodes="ns=2;s=Handshake.{}", password=None)
    with pytest.raises(SinkDown, match="has not set Taken to 1"):
        list(sink.deliver([message(1), message(2)]))
    assert nodes["Number"].read_value() == 1
    monkeypatch.setattr(opcua, "TAKEN_WITHIN_S", 5)
    delivered: list[int] = []
    thread = threading.Thread(target=lambda: delivered.extend(sink.deliver([message(1), message(2)])))
    thread.start()
    for number in (1, 2):
        assert comes_true(lambda wanted=number: nodes["Number"].read_value() == wanted, within_s=5)
        nodes["Taken"].write_value(number, ua.VariantType.UInt16)
    thread.join(10)
    assert delivered == [1, 2]
    sink.close()


def test_without_the_required_variables_nothing_is_written(plc: Plc) -> None:
    plc.add("Few", {"Number": ua.VariantType.UInt32})
    sink = OpcUa(plc.url, nodes="ns=2;s=Few.{}", password=None)
    with pytest.raises(SinkDown, match=r"it has no variable ns=2;s=Few\.Judged"):
        list(sink.deliver([message()]))


def test_a_variable_of_a_type_that_does_not_fit_is_named(plc: Plc) -> None:
    plc.add("Odd", {**VARIABLES, "Score": ua.VariantType.Int16})
    sink = OpcUa(plc.url, nodes="ns=2;s=Odd.{}", password=None)
    with pytest.raises(SinkDown, match=r"the type of ns=2;s=Odd\.Score is Int16, expected Float or Double"):
        list(sink.deliver([message()]))


@pytest.mark.parametrize(
    ("url", "nodes", "words"),
    [
        ("http://plc:4840", NODES, "address is"),
        ("opc.tcp://user:word@plc", NODES, "seen by everybody"),
        ("opc.tcp://plc", "ns=2;s=Inspection", "expected one with {}"),
        ("opc.tcp://plc", "two;{}", "expected one with {}"),
    ],
)
def test_no_such_address_or_id(url: str, nodes: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        OpcUa(url, nodes=nodes, password=None)

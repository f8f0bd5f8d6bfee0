from __future__ import annotations

import os
import socket

import pytest

from deploy.errors import PortError
from deploy.ports import Ports, claim_ports, host_address, port_holder


def test_picked_ports_differ_and_can_be_taken() -> None:
    ports = claim_ports("127.0.0.1", Ports())
    assert len({ports.http, ports.grpc, ports.metrics}) == 3
    for port in (ports.http, ports.grpc, ports.metrics):
        socket.create_server(("127.0.0.1", port)).close()


def test_a_given_port_is_kept() -> None:
    free = claim_ports("127.0.0.1", Ports()).metrics
    assert claim_ports("127.0.0.1", Ports(metrics=free)).metrics == free


@pytest.mark.parametrize("listening_on", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_named_with_its_holder(listening_on: str) -> None:
    with socket.create_server((listening_on, 0)) as listener:
        port = listener.getsockname()[1]
        message = rf"port {port} of 127.0.0.1 is in use by '.*' \(process {os.getpid()}\); .*--grpc-port"
        with pytest.raises(PortError, match=message):
            claim_ports("127.0.0.1", Ports(grpc=port))


def test_a_port_held_over_ipv6_has_its_holder_found() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert f"process {os.getpid()}" in str(port_holder(listener.getsockname()[1]))


def test_a_free_port_has_no_holder() -> None:
    assert port_holder(claim_ports("127.0.0.1", Ports()).http) is None


def test_two_services_cannot_share_a_port() -> None:
    with pytest.raises(PortError, match="port 18123 is given to two services; --grpc-port"):
        claim_ports("127.0.0.1", Ports(http=18123, grpc=18123))


def test_a_name_becomes_an_address() -> None:
    assert host_address("localhost") == "127.0.0.1"
    assert host_address("0.0.0.0") == "0.0.0.0"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(
        PortError, match=r"host no\.such\.host\.invalid has no IPv4 address \(.+\); give another --host"
    ):
        host_address("no.such.host.invalid")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortError, match=r"of 192\.0\.2\.1 cannot be listened on \(Cannot assign .*address\)"):
        claim_ports("192.0.2.1", Ports())


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_is_not_every_address(host: str) -> None:
    with pytest.raises(PortError, match=r"--host is empty; give 127\.0\.0\.1 for this machine alone"):
        host_address(host)


def test_a_host_that_is_no_name_is_told() -> None:
    with pytest.raises(PortError, match=r"has no IPv4 address \(.+\); give another --host"):
        host_address("x" * 300)

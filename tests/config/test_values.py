"""Prefixes and endpoints: B59 (many prefixes, as far as parsing goes), B66."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given

from tests.config.strategies import KEY, endpoints, interfaces
from tests.property.strategies import prefixes
from wgpy.config import Endpoint, InterfaceConfig, Prefix
from wgpy.errors import ConfigError


def test_b59_a_file_of_many_prefixes_is_read() -> None:
    prefixes_ = [f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(130_560)]
    lines = "".join(f"AllowedIPs = {','.join(prefixes_[n : n + 64])}\n" for n in range(0, len(prefixes_), 64))
    (peer,) = InterfaceConfig.from_ini(f"[Peer]\nPublicKey = {KEY}\n{lines}").peers
    assert list(map(str, peer.allowed_ips)) == prefixes_


@given(prefixes, prefixes)
def test_prefixes_agree_with_the_standard_library(one: Prefix, other: Prefix) -> None:
    here, there = ipaddress.ip_network(str(one)), ipaddress.ip_network(str(other))
    assert Prefix.parse(str(here)) == one
    assert one.holds(other) == (here.version == there.version and there.subnet_of(here))


@given(interfaces)
def test_b66_host_bits_are_cleared(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
    assert str(Prefix.parse(str(address))) == str(address.network)
    alone = Prefix.parse(str(address.ip))
    assert alone.length == address.max_prefixlen
    with pytest.raises(ConfigError):
        Prefix.parse(str(address.ip), needs_length=True)


@given(endpoints)
def test_an_endpoint_is_read_as_it_is_written(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert hash(Endpoint.parse(str(endpoint))) == hash(endpoint)
    assert endpoint.is_name == (endpoint.packed == b"")
    if not endpoint.is_name:
        assert endpoint.packed[-2:] == endpoint.port.to_bytes(2)
        assert endpoint.packed[:-2] == ipaddress.ip_address(endpoint.host).packed


def test_an_ipv4_mapped_endpoint_becomes_ipv4_and_such_a_prefix_stays() -> None:
    """Protocol notes 1.10."""
    assert str(Endpoint.parse("[::ffff:192.0.2.1]:5")) == "192.0.2.1:5"
    assert Prefix.parse("::ffff:192.0.2.1/128").version == 6


def test_an_endpoint_cannot_be_changed() -> None:
    endpoint = Endpoint("192.0.2.1", 1)
    with pytest.raises(AttributeError):
        endpoint.port = 2


@pytest.mark.parametrize(
    "text",
    ["a", "a:", ":1", "[a", "[::1]1", "1.2.3:1", "1.2.3.4.5:1", "a b:1", "a:1 ", "a:x", "192.0.2.1%eth0:1"],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint.parse(text)

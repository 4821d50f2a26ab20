"""Configurations: values checked once, when they are made."""

from __future__ import annotations

import pytest

from tests.config.strategies import KEY
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: PeerConfig(KEY, persistent_keepalive=65536), "PersistentKeepalive"),
        (lambda: PeerConfig(KEY, persistent_keepalive=True), "PersistentKeepalive"),
        (lambda: PeerConfig(KEY, allowed_ips="10.0.0.0/8"), "AllowedIPs"),
        (lambda: InterfaceConfig(fwmark=-1), "FwMark"),
        (lambda: PeerConfig(KEY, persistent_keepalive=2.5), "PersistentKeepalive"),
        (lambda: PeerConfig(KEY, allowed_ips=[b"wiki"]), "AllowedIPs"),
        (lambda: PeerConfig(KEY, allowed_ips=[1]), "AllowedIPs"),
        (lambda: PeerConfig(KEY, endpoint=("a", 1)), "Endpoint"),
        (lambda: PeerConfig(PrivateKey(bytes(32))), "PublicKey"),
        (lambda: PeerConfig(PresharedKey(bytes(32))), "PublicKey"),
        (lambda: PeerConfig(32), "PublicKey"),
        (lambda: PeerConfig(KEY, preshared_key=PublicKey(KEY)), "PresharedKey"),
        (lambda: InterfaceConfig(PublicKey(KEY)), "PrivateKey"),
        (lambda: InterfaceConfig(32), "PrivateKey"),
        (lambda: InterfaceConfig(peers=[KEY]), "Peer"),
        (lambda: InterfaceConfig(listen_port=float("nan")), "ListenPort"),
        (lambda: InterfaceConfig(addresses=[b"wiki"]), "Address"),
        (lambda: InterfaceConfig(addresses=[167772161]), "Address"),
        (lambda: InterfaceConfig(dns=[b"wiki"]), "DNS"),
        (lambda: InterfaceConfig(dns_search=["a b"]), "DNS"),
        (lambda: InterfaceConfig(table="a b"), "Table"),
        (lambda: InterfaceConfig(post_up=["a # b"]), "PostUp"),
        (lambda: InterfaceConfig(post_up=["a\n[Peer]"]), "PostUp"),
        (lambda: InterfaceConfig(mtu=10), "MTU"),
        (lambda: InterfaceConfig(mtu=1420.0), "MTU"),
        (lambda: Endpoint(b"wiki", 1), "Endpoint"),
        (lambda: Endpoint("a", True), "Endpoint"),
        (lambda: Endpoint("a", float("nan")), "Endpoint"),
        (lambda: Endpoint.parse(b"a:1"), "Endpoint"),
        (lambda: InterfaceConfig(peers=[PeerConfig(KEY), PeerConfig(KEY)]), "Peer[2].PublicKey"),
        (lambda: InterfaceConfig(dns=["name"]), "DNS"),
        (lambda: Endpoint("a", 65536), "Endpoint"),
        (lambda: Endpoint("fe80::1%", 1), "Endpoint"),
    ],
)
def test_a_value_is_checked_when_it_is_made(wrong: object, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        wrong()  # type: ignore[operator]
    assert raised.value.field == field

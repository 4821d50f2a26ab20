"""Names become addresses before the engine sees them; R4 (the part that exists: once, at the beginning)."""

from __future__ import annotations

import socket

import pytest

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.keys import PublicKey
from wgpy.runtime.tunnel import resolve_endpoints

PEERS = [
    PeerConfig(PublicKey(bytes([n]) * 32), endpoint=endpoint)
    for n, endpoint in enumerate([None, Endpoint("192.0.2.1", 1), Endpoint("vpn.example", 51820)])
]


async def test_names_are_resolved_and_addresses_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        asked.append((host, port))
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::5", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    config = await resolve_endpoints(InterfaceConfig(peers=PEERS))
    assert [peer.endpoint for peer in config.peers] == [
        None,
        Endpoint("192.0.2.1", 1),
        Endpoint("2001:db8::5", 51820),
    ]
    assert asked == [("vpn.example", 51820)]
    assert await resolve_endpoints(config) is config


async def test_a_name_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConfigError, match=r"cannot resolve 'vpn.example': Name or service not known") as raised:
        await resolve_endpoints(InterfaceConfig(peers=PEERS))
    assert raised.value.field == "Peer[3].Endpoint"

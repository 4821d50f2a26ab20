"""A real handshake tells whether UDP gets there and back; a datagram that leaves tells nothing."""

from __future__ import annotations

import socket

import trio

import wgpy
from edge_agent.udpcheck import shake_hands
from tests.edge.fakehub import HUB_PUBLIC, open_hub

KEY = wgpy.PrivateKey(bytes(range(1, 33)))


async def test_a_hub_that_knows_the_key_answers() -> None:
    async with open_hub() as hub:
        hub.put_peer(bytes(KEY.public_key), bytes(32))
        with trio.fail_after(30):
            at = wgpy.Endpoint("127.0.0.1", hub.udp_port)
            assert await shake_hands(bytes(KEY), HUB_PUBLIC, at, patience=20) == "answered"


async def test_silence_is_told_apart_from_a_refusal() -> None:
    """A firewall that drops, or rejects: the first is a port where somebody listens and says nothing."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        at = wgpy.Endpoint("127.0.0.1", port)
        assert await shake_hands(bytes(KEY), HUB_PUBLIC, at, patience=1) == "no answer"
        silent.settimeout(5)
        assert silent.recv(200)[:4] == b"\1\0\0\0", "an initiation was sent"
    assert await shake_hands(bytes(KEY), HUB_PUBLIC, at, patience=20) == "refused"


async def test_only_the_hub_of_the_key_counts() -> None:
    """Whoever answers without the hub's key is nobody."""
    async with open_hub() as hub:
        hub.put_peer(bytes(KEY.public_key), bytes(32))
        other = bytes(wgpy.PrivateKey.generate().public_key)
        at = wgpy.Endpoint("127.0.0.1", hub.udp_port)
        assert await shake_hands(bytes(KEY), other, at, patience=1) == "no answer"

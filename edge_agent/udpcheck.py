"""Whether WireGuard gets to the hub and back, tried with a real handshake.

A datagram that is sent says nothing: a firewall that drops it is as silent as a hub that does not know the sender. So a
key made for this one check is shown to the hub over HTTPS, which answers its handshakes for a minute (`POST
/v1/edge/probe`); nothing else comes of it. Beside it a connected socket listens for the ICMP that says "refused".
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Final, Literal

import trio

import wgpy

__all__ = ["PATIENCE", "Verdict", "shake_hands"]

Verdict = Literal["answered", "refused", "no answer", "no route"]

# Two initiations, five seconds apart, and what a slow way takes.
PATIENCE: Final = 8.0
_REFUSALS: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM})
_INITIATION_SIZE: Final = 148
# An address that is given to nobody (RFC 7600 section 4.8): no packet is ever sent through this tunnel.
_NOBODY: Final = "192.0.0.8/32"


async def shake_hands(private_key: bytes, hub_key: bytes, at: wgpy.Endpoint, *, patience: float = 0.0) -> Verdict:
    """Try one endpoint.

    Args:
        private_key: that the hub was shown the public half of.
        hub_key: the hub's public key.
        at: an address and a port.
        patience: seconds, `PATIENCE` without.

    Returns:
        How it went. Only the holder of the hub's key can make it "answered".
    """
    peer = wgpy.PublicKey(hub_key)
    config = wgpy.InterfaceConfig(
        wgpy.PrivateKey(private_key), addresses=[_NOBODY], mtu=1280, peers=[wgpy.PeerConfig(peer)]
    )
    verdict: Verdict = "no answer"
    async with wgpy.open_tunnel(config) as tunnel, trio.open_nursery() as nursery:

        async def until_answered() -> None:
            nonlocal verdict
            async for event in events:
                if isinstance(event, wgpy.HandshakeCompleted):
                    verdict = "answered"
                    nursery.cancel_scope.cancel()

        async def until_refused() -> None:
            nonlocal verdict
            if (found := await _listen_for_refusal(at)) is not None:
                verdict = found
                nursery.cancel_scope.cancel()

        events = tunnel.device.events()
        nursery.start_soon(until_answered)
        nursery.start_soon(until_refused)
        tunnel.device.start_handshake(peer, at=at)
        nursery.cancel_scope.deadline = trio.current_time() + (patience or PATIENCE)
    return verdict


async def _listen_for_refusal(at: wgpy.Endpoint) -> Verdict | None:
    """What ICMP says to a datagram that is no message of anybody's: the hub drops it by its first check."""
    family = socket.AF_INET6 if at.version == 6 else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as udp:
        try:
            await udp.connect((at.host, at.port))
            for _ in range(3):
                await udp.send(b"\1\0\0\0" + os.urandom(_INITIATION_SIZE - 4))
                with contextlib.suppress(trio.TooSlowError), trio.fail_after(1):
                    await udp.recv(65536)
        except OSError as problem:
            if problem.errno in _REFUSALS:
                return "refused"
            if problem.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
                return "no route"
    return None

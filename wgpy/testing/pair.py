"""Two engines that know each other, on a network of their own.

a 192.0.2.1, 2001:db8::1, inner 10.0.0.1, fd00::1  ---  b 192.0.2.2, 2001:db8::2, inner 10.0.0.2, fd00::2
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, Any

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.keys import PrivateKey
from wgpy.protocol.engine import Engine
from wgpy.testing.network import Network
from wgpy.wire.checksum import checksum

if TYPE_CHECKING:
    from wgpy.keys import PresharedKey

__all__ = ["A4", "A6", "B4", "B6", "Pair", "packet"]

A4, A6 = Endpoint("192.0.2.1", 51820), Endpoint("2001:db8::1", 51820)
B4, B6 = Endpoint("192.0.2.2", 51820), Endpoint("2001:db8::2", 51820)


def packet(source: str = "10.0.0.1", target: str = "10.0.0.2", payload: bytes = b"hello") -> bytes:
    """An inner UDP packet, IPv4 or IPv6 by its addresses; the UDP checksum is left at zero."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address(target)
    body = struct.pack("!HHHH", 7, 7, 8 + len(payload), 0) + payload
    if here.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), 17, 64) + here.packed + there.packed + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, 17, 0) + here.packed + there.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


class Pair:
    """Two hosts, `a` and `b`, on `network`.

    Attributes:
        network: where they are.
        a: the first; it knows where `b` is.
        b: the second; it learns where `a` is, unless told.
        a_key: private key of `a`.
        b_key: private key of `b`.

    Example:
        >>> pair = Pair()
        >>> pair.a.send(packet())
        >>> pair.network.run(1)
        >>> pair.b.received == [packet()]
        True
    """

    def __init__(
        self,
        network: Network | None = None,
        *,
        psk: PresharedKey | None = None,
        b_psk: PresharedKey | None = None,
        b_knows_a: bool = False,
        keepalive: int = 0,
        mtu: int = 1420,
        version: int = 4,
        **more: Any,
    ) -> None:
        """Join them.

        Args:
            network: with the trouble that is wanted.
            psk: preshared key of both.
            b_psk: another one for `b`.
            b_knows_a: `b` can begin too.
            keepalive: persistent keepalive of `a`, seconds.
            mtu: of both.
            version: address family outside.
            more: for both engines, such as `keylog`.
        """
        self.network = network or Network()
        rand = self.network.random.randbytes
        self.a_key, self.b_key = PrivateKey(rand(32)), PrivateKey(rand(32))
        a_at, b_at = (A4, B4) if version == 4 else (A6, B6)
        to_b = PeerConfig(
            self.b_key.public_key,
            allowed_ips=["10.0.0.2/32", "fd00::2/128"],
            endpoint=b_at,
            preshared_key=psk,
            persistent_keepalive=keepalive,
        )
        to_a = PeerConfig(
            self.a_key.public_key,
            allowed_ips=["10.0.0.1/32", "fd00::1/128"],
            endpoint=a_at if b_knows_a else None,
            preshared_key=b_psk or psk,
        )

        def engine(key: PrivateKey, peer: PeerConfig) -> Engine:
            return Engine(
                InterfaceConfig(key, peers=[peer]),
                random=rand,
                wall_clock=lambda: self.network.wall_clock(),
                mtu=mtu,
                **more,
            )

        self.a = self.network.attach(engine(self.a_key, to_b), A4, A6)
        self.b = self.network.attach(engine(self.b_key, to_a), B4, B6)

    def shake_hands(self) -> None:
        """Let `a` begin, and wait until both hold a session that is confirmed."""
        self.a.send(packet())
        done = self.network.run_until(lambda: bool(self.b.received))
        assert done, "no session came about"
        self.network.run(0.5)
        self.a.received.clear()
        self.b.received.clear()

    def exchange(self, payload: bytes = b"ping") -> bool:
        """Send a packet each way: whether both arrived within a second."""
        there, back = packet(payload=payload), packet("10.0.0.2", "10.0.0.1", payload)
        counts = len(self.a.received), len(self.b.received)
        self.a.send(there)
        self.network.run(1)
        self.b.send(back)
        self.network.run(1)
        return self.b.received[counts[1] :] == [there] and self.a.received[counts[0] :] == [back]

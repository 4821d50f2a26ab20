"""Two stacks joined by a wire, for tests of everything that is not TCP.

a 10.0.0.1, fd00::1  ---  b 10.0.0.2, fd00::2
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter

from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane import rows
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Arena, Slab
from wgpy.errors import DropReason
from wgpy.netstack.icmp import Icmp
from wgpy.netstack.stack import Socket, Stack

ROWS: list[Rows] = [rows]
with contextlib.suppress(ImportError):
    from wgpy.dataplane import rows_numpy

    ROWS.append(rows_numpy)
ADDRESSES = {"a": ("10.0.0.1", "fd00::1"), "b": ("10.0.0.2", "fd00::2")}


def arriving(packet: bytes) -> Slab:
    """A packet as `dataplane.inner` hands it on: without padding."""
    buffer = bytearray(TRANSPORT_OVERHEAD + len(packet))
    buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + len(packet)] = packet
    return Slab(Arena(buffer), 0, len(buffer), 1, len(packet))


def without_padding(row: memoryview) -> bytes:
    """The packet in a row of a slab that is on its way out."""
    return bytes(row[: row[2] << 8 | row[3] if row[0] >> 4 == 4 else (row[4] << 8 | row[5]) + 40])


class Host:
    """A stack with all its parts.

    Attributes:
        sent: every packet that it sent, without padding.
        ready: sockets that became ready.
    """

    def __init__(self, name: str, *, mtu: int = 1420, seed: int = 1) -> None:
        randbytes = random.Random(f"{name}{seed}").randbytes
        self.addresses = ADDRESSES[name]
        self.stack = Stack(addresses=self.addresses, mtu=mtu, random=randbytes)
        self.icmp = Icmp(self.stack, random=randbytes)
        self.udp = self.icmp.udp
        self.sent: list[bytes] = []
        self.ready: list[Socket] = []

    @property
    def drops(self) -> Counter[DropReason]:
        return self.stack.drops

    def receive(self, *packets: bytes, now: float = 0.0) -> None:
        self.ready += self.stack.receive([arriving(packet) for packet in packets], now)

    def emit(self, now: float = 0.0, budget: int = 10_000) -> list[bytes]:
        packets = [without_padding(row) for slab in self.stack.emit(now, budget) for row in slab]
        self.sent += packets
        self.ready += self.stack.take_ready()
        return packets


class Wire:
    """Both hosts."""

    def __init__(self, *, mtu: int = 1420) -> None:
        self.a = Host("a", mtu=mtu)
        self.b = Host("b", mtu=mtu)
        self.now = 0.0

    def run(self) -> None:
        """Carry packets to and fro until nobody sends any more."""
        while True:
            there, back = self.a.emit(self.now), self.b.emit(self.now)
            if not there and not back:
                return
            self.b.receive(*there, now=self.now)
            self.a.receive(*back, now=self.now)

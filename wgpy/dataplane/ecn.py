"""Congestion marks that cross from the outer header to the inner one, when a tunnel ends.

Source: RFC 6040, section 4.2; Linux drivers/net/wireguard/receive.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.wire import ip
from wgpy.wire.checksum import updated

if TYPE_CHECKING:
    from wgpy.dataplane.slab import Slab

__all__ = ["decapsulate"]

_NOT_ECT: Final = 0b00
_ECT_1: Final = 0b01
_ECT_0: Final = 0b10
_CE: Final = 0b11


def decapsulate(slab: Slab, outer: int) -> None:
    """Carry an outer mark over to every packet of the slab.

    A packet that cannot carry a mark (Not-ECT) stays as it is. RFC 6040 would drop it under an outer CE, but it left
    the other end in an outer packet that could carry none either: whoever marked that one marks everything, and
    dropping would take the tunnel away. The Linux driver delivers it too.

    Args:
        slab: opened, without padding; marked in place.
        outer: ECN bits of the outer header, ECT(1) or CE: the others change nothing.
    """
    for packet in slab:
        inner = ip.traffic_class(packet) & 0b11
        if (outer == _CE and inner != _NOT_ECT) or (outer == _ECT_1 and inner == _ECT_0):
            _mark(packet, outer)


def _mark(packet: memoryview, ecn: int) -> None:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0b1100_1111 | ecn << 4
        return
    old = packet[0] << 8 | packet[1]
    packet[1] = packet[1] & 0b1111_1100 | ecn
    field = packet[10] << 8 | packet[11]
    packet[10:12] = updated(field, old, packet[0] << 8 | packet[1]).to_bytes(2)

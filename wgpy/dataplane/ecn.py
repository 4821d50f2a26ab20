"""Congestion marks that cross from the outer header to the inner one, when a tunnel ends.

Source: RFC 6040, section 4.2.
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


def decapsulate(slab: Slab, outer: int) -> tuple[list[Slab], int]:
    """Carry an outer mark over to every packet of the slab.

    Args:
        slab: opened, without padding.
        outer: ECN bits of the outer header, ECT(1) or CE: the others change nothing.

    Returns:
        The packets to deliver, and how many must be dropped: they cannot say what happened to them.
    """
    kept: list[Slab] = []
    lost = 0
    is_running = False
    for row, packet in enumerate(slab):
        inner = ip.traffic_class(packet) & 0b11
        if outer == _CE and inner == _NOT_ECT:
            lost += 1
            is_running = False
            continue
        if outer == _CE or (outer == _ECT_1 and inner == _ECT_0):
            _mark(packet, outer)
        if is_running:
            kept[-1] = slab.part(row - kept[-1].count, kept[-1].count + 1)
        else:
            kept.append(slab.part(row, 1))
            is_running = True
    return kept, lost


def _mark(packet: memoryview, ecn: int) -> None:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0b1100_1111 | ecn << 4
        return
    old = packet[0] << 8 | packet[1]
    packet[1] = packet[1] & 0b1111_1100 | ecn
    field = packet[10] << 8 | packet[11]
    packet[10:12] = updated(field, old, packet[0] << 8 | packet[1]).to_bytes(2)

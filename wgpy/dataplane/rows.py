"""THE per-packet module: the only loops that run once per packet, in plain Python. The reference for `rows_numpy`.

Every function here has a twin there with the same name, arguments and result, byte for byte.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from wgpy.constants import MESSAGE_TRANSPORT, TRANSPORT_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.dataplane.slab import Arena, Slab

__all__ = ["count_same_heads", "is_one_flow", "read_counters", "write_counters", "write_index"]

_HEADER: Final = struct.Struct("<IIQ")
_INDEX: Final = struct.Struct("<I")
_COUNTER: Final = struct.Struct("<Q")

# --- sealing and opening ---------------------------------------------------------------------------------------------


def write_counters(slabs: Sequence[Slab], first_counter: int) -> None:
    """Write type and counter of every row, and zeros for the index: octets 4 to 16 are the nonce then.

    Args:
        slabs: unsealed rows.
        first_counter: of the first row; it runs on from slab to slab.
    """
    counter = first_counter
    pack = _HEADER.pack_into
    for slab in slabs:
        view, at = slab.arena.view, slab.start
        for _ in range(slab.count):
            pack(view, at, MESSAGE_TRANSPORT, 0, counter)
            counter += 1
            at += slab.stride


def write_index(slabs: Sequence[Slab], receiver_index: int) -> None:
    """Fill in the receiver index of every row, when the nonces have been used."""
    pack = _INDEX.pack_into
    for slab in slabs:
        view, at = slab.arena.view, slab.start + 4
        for _ in range(slab.count):
            pack(view, at, receiver_index)
            at += slab.stride


def read_counters(slabs: Sequence[Slab]) -> list[int]:
    """The counter of every row, numbered on from slab to slab.

    The index is zeroed, so that octets 4 to 16 are the nonce.
    """
    counters: list[int] = []
    unpack, pack = _COUNTER.unpack_from, _INDEX.pack_into
    for slab in slabs:
        view, at = slab.arena.view, slab.start
        for _ in range(slab.count):
            counters.append(unpack(view, at + 8)[0])
            pack(view, at + 4, 0)
            at += slab.stride
    return counters


def count_same_heads(arena: Arena, start: int, stride: int, count: int) -> int:
    """How many datagrams from the first on begin with the same eight octets: type, reserved bytes and receiver index.

    Args:
        arena: where they lie.
        start: offset of the first.
        stride: from one to the next, at least 8.
        count: how many; each has at least 8 octets. At least one.
    """
    view = arena.view
    head = view[start : start + 8]
    for row in range(1, count):
        at = start + row * stride
        if view[at : at + 8] != head:
            return row
    return count


# --- inner packets ---------------------------------------------------------------------------------------------------


def is_one_flow(slab: Slab) -> bool:
    """Whether all rows but the last say the same version, length and source as the first, and the last the same source.

    The first packet has been checked to be whole. Such a slab is one group without a look at each packet.
    """
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    if view[at] >> 4 == 4:
        # Version, header length and total length; the source.
        fields, source = (0, 1, 2, 4), (12, 16)
    else:
        # Version; payload length; the source.
        fields, source = (0, 1, 4, 6), (8, 24)
    first = [view[at + fields[0] : at + fields[1]], view[at + fields[2] : at + fields[3]]]
    address = view[at + source[0] : at + source[1]]
    last = slab.count - 1
    for row in range(1, slab.count):
        at += slab.stride
        if view[at + source[0] : at + source[1]] != address:
            return False
        if row == last:
            return view[at] >> 4 == first[0][0] >> 4
        if view[at + fields[0] : at + fields[1]] != first[0] or view[at + fields[2] : at + fields[3]] != first[1]:
            return False
    return True

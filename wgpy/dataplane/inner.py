"""After opening: which rows are whole packets, how long they really are, and who claims to have sent them.

Rows next to each other with one source address and one length become a group: a slab without the padding. Whether the
source may be used is decided elsewhere.

Source: WireGuard whitepaper, section 5.4.6 and section 2 (cryptokey routing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.dataplane.slab import Slab
from wgpy.wire import ip

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["InnerGroup", "InnerRows", "sort_rows"]


class InnerGroup(NamedTuple):
    """Packets of one slab, next to each other, of one source and length.

    Attributes:
        source: 4 or 16 octets.
        slab: the packets without padding; the last may be shorter.
        octets: of the datagrams that they came in, padding and overhead included.
    """

    source: bytes
    slab: Slab
    octets: int


class InnerRows(NamedTuple):
    """What a batch held.

    Attributes:
        groups: in order of arrival.
        keepalives: rows without a packet.
        malformed: rows that hold no whole packet.
    """

    groups: list[InnerGroup]
    keepalives: int
    malformed: int


def sort_rows(slabs: Sequence[Slab], refused: Sequence[int], rows: Rows = selected) -> InnerRows:
    """Group the opened rows of slabs.

    Args:
        slabs: opened.
        refused: rows that must not be looked at, numbered on from slab to slab.
        rows: the row functions to use.
    """
    groups: list[InnerGroup] = []
    keepalives = malformed = before = 0
    for slab in slabs:
        bad: Collection[int] = ()
        if refused:
            bad = {row - before for row in refused if before <= row < before + slab.count}
        before += slab.count
        group = None if bad or slab.count == 1 else _whole_slab(slab, rows)
        if group is not None:
            groups.append(group)
            continue
        for row in range(slab.count):
            if bad and row in bad:
                continue
            at = slab.start + row * slab.stride + TRANSPORT_HEADER_SIZE
            length = slab.last_length if row == slab.count - 1 else slab.length
            if not length:
                keepalives += 1
                continue
            packet = slab.arena.view[at : at + length]
            true_length = ip.true_length_untrusted(packet)
            if not true_length:
                malformed += 1
                continue
            source = ip.source(packet)
            size = length + TRANSPORT_OVERHEAD
            if groups and _is_continued(groups[-1], slab, at, source, true_length):
                last = groups[-1]
                last.slab.count += 1
                last.slab.last_length = true_length
                groups[-1] = InnerGroup(source, last.slab, last.octets + size)
            else:
                alone = Slab(slab.arena, at - TRANSPORT_HEADER_SIZE, slab.stride, 1, true_length)
                groups.append(InnerGroup(source, alone, size))
    return InnerRows(groups, keepalives, malformed)


def _whole_slab(slab: Slab, rows: Rows) -> InnerGroup | None:
    """The whole slab as one group, if one look at a few columns shows that it is one."""
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    first = view[at : at + slab.length]
    length = ip.true_length_untrusted(first)
    if not length:
        return None
    last_at = at + (slab.count - 1) * slab.stride
    last_length = ip.true_length_untrusted(view[last_at : last_at + slab.last_length])
    if not last_length or last_length > length or not rows.is_one_flow(slab):
        return None
    whole = Slab(slab.arena, slab.start, slab.stride, slab.count, length, last_length)
    return InnerGroup(ip.source(first), whole, slab.size)


def _is_continued(group: InnerGroup, slab: Slab, at: int, source: bytes, length: int) -> bool:
    """Whether the packet at `at` follows the last one of the group, with the same source and no more octets."""
    before = group.slab
    return (
        before.arena is slab.arena
        and before.stride == slab.stride
        and before.last_length == before.length
        and length <= before.length
        and before.start + before.count * before.stride == at - TRANSPORT_HEADER_SIZE
        and source == group.source
    )

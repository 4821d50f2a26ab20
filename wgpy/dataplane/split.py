"""One superpacket, as the kernel joined it for us, into the rows of slabs: headers, sequence numbers, checksums.

Where the payload was read to its place already, only the headers are written (`finish`); else it is copied there first
(`cut`). A whole packet may have its checksum left to us too (`finish_checksum`).

Source: Linux Documentation/networking/segmentation-offloads.rst; RFC 9293, RFC 768, RFC 6864.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from wgpy.constants import MAX_SEGMENTS, MAX_UDP_PAYLOAD_IPV4, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.dataplane.slab import Arena, Slab, padded_length
from wgpy.wire import checksum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.wire.virtio import Offload

__all__ = ["Superpacket", "cut", "finish", "finish_checksum", "rows_per_slab"]

_PROTOCOL_TCP: Final = 6
_PROTOCOL_UDP: Final = 17
# TCP flags that belong to the last segment only: FIN and PSH.
_LAST_ONLY: Final = 0x09
_DONT_FRAGMENT: Final = 0x40


class Superpacket(NamedTuple):
    """Payload in the rows of a slab, headers in the first row: they are those of the whole.

    Attributes:
        slab: unsealed; lengths with padding.
        offload: how it was joined.
        last_length: octets of the last row's packet without padding.
        is_end: whether the last row ends what was joined, and so may carry FIN and PSH.
    """

    slab: Slab
    offload: Offload
    last_length: int
    is_end: bool = True


def rows_per_slab(stride: int) -> int:
    """How many datagrams of so many octets leave in one UDP_SEGMENT send; at least 1."""
    return max(1, min(MAX_SEGMENTS, MAX_UDP_PAYLOAD_IPV4 // stride))


def cut(packet: memoryview, offload: Offload, mtu: int) -> list[Superpacket]:
    """Copy a superpacket's payload into the rows of as many slabs as it needs; `finish` does the rest.

    Args:
        packet: the whole superpacket.
        offload: how it was joined.
        mtu: of the interface.
    """
    header_length, payload, start = offload.header_length, offload.gso_size, offload.csum_start
    length = header_length + payload
    padded = padded_length(length, mtu)
    stride = padded + TRANSPORT_OVERHEAD
    most = rows_per_slab(stride)
    left = len(packet) - header_length
    segments = -(-left // payload)
    superpackets: list[Superpacket] = []
    for first in range(0, segments, most):
        count = min(most, segments - first)
        is_end = first + count == segments
        last_length = header_length + (left - (segments - 1) * payload if is_end else payload)
        slab = Slab(Arena(count * stride), 0, stride, count, padded, padded_length(last_length, mtu))
        view = slab.arena.view
        header = bytearray(packet[:header_length])
        if not offload.is_udp:
            sequence = int.from_bytes(header[start + 4 : start + 8]) + first * payload
            header[start + 4 : start + 8] = (sequence & 0xFFFFFFFF).to_bytes(4)
        if header[0] >> 4 == 4:
            header[4:6] = (int.from_bytes(header[4:6]) + first & 0xFFFF).to_bytes(2)
        view[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + header_length] = header
        for row in range(count):
            at = row * stride + TRANSPORT_HEADER_SIZE + header_length
            octets = packet[header_length + (first + row) * payload :][:payload]
            view[at : at + len(octets)] = octets
        superpackets.append(Superpacket(slab, offload, last_length, is_end))
    return superpackets


def finish(superpackets: Sequence[Superpacket], rows: Rows = selected) -> None:
    """Write the headers of every row; afterwards each row is a packet that can stand alone.

    Args:
        superpackets: neighbours of one shape in one arena are worked on together.
        rows: the row functions to use.
    """
    together: list[Superpacket] = []
    for superpacket in superpackets:
        if together and _shape(superpacket) != _shape(together[0]):
            _finish_alike(together, rows)
            together = []
        together.append(superpacket)
    if together:
        _finish_alike(together, rows)


def _shape(superpacket: Superpacket) -> tuple[object, ...]:
    slab = superpacket.slab
    first = slab.arena.view[slab.start + TRANSPORT_HEADER_SIZE]
    return superpacket.offload, slab.count, slab.stride, first, _counts_ids(superpacket)


def _counts_ids(superpacket: Superpacket) -> bool:
    # RFC 6864 section 4: a packet that may not be fragmented may carry any identification.
    view, at = superpacket.slab.arena.view, superpacket.slab.start + TRANSPORT_HEADER_SIZE
    return view[at] >> 4 == 4 and not view[at + 6] & _DONT_FRAGMENT


def _finish_alike(superpackets: Sequence[Superpacket], rows: Rows) -> None:
    offload = superpackets[0].offload
    length = offload.header_length + offload.gso_size
    sums: list[int] = []
    last_flags: list[int] = []
    for superpacket in superpackets:
        slab = superpacket.slab
        view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
        sums.append(_set_lengths(view, at, offload, length))
        transport = at + offload.csum_start
        view[transport + offload.csum_offset : transport + offload.csum_offset + 2] = b"\0\0"
        if offload.is_udp:
            last_flags.append(0)
        else:
            flags = view[transport + 13]
            view[transport + 13] = flags & ~_LAST_ONLY
            last_flags.append(flags if superpacket.is_end else flags & ~_LAST_ONLY)
        if slab.length != length:
            rows.clear_padding(slab, length)
    counts_ids = _counts_ids(superpackets[0])
    rows.write_segments(
        [superpacket.slab for superpacket in superpackets], offload, sums, last_flags, counts_ids=counts_ids
    )
    for superpacket in superpackets:
        slab, last_length = superpacket.slab, superpacket.last_length
        at = slab.start + (slab.count - 1) * slab.stride + TRANSPORT_HEADER_SIZE
        view = slab.arena.view
        if last_length != length:
            pseudo = _set_lengths(view, at, offload, last_length)
            transport = at + offload.csum_start
            view[transport + offload.csum_offset : transport + offload.csum_offset + 2] = b"\0\0"
            value = checksum.checksum(view[transport : at + last_length], pseudo)
            _write_checksum(view, transport + offload.csum_offset, value, is_udp=offload.is_udp)
        if last_length != slab.last_length:
            view[at + last_length : at + slab.last_length] = bytes(slab.last_length - last_length)


def _set_lengths(view: memoryview, at: int, offload: Offload, length: int) -> int:
    """Write the length fields and the IPv4 checksum of a packet, and say the sum of its pseudo header."""
    start = offload.csum_start
    of_transport = length - start
    if view[at] >> 4 == 4:
        view[at + 2 : at + 4] = length.to_bytes(2)
        view[at + 10 : at + 12] = b"\0\0"
        view[at + 10 : at + 12] = checksum.checksum(view[at : at + start]).to_bytes(2)
        addresses = view[at + 12 : at + 20]
    else:
        view[at + 4 : at + 6] = (length - 40).to_bytes(2)
        addresses = view[at + 8 : at + 40]
    if offload.is_udp:
        view[at + start + 4 : at + start + 6] = of_transport.to_bytes(2)
    protocol = _PROTOCOL_UDP if offload.is_udp else _PROTOCOL_TCP
    return checksum.folded(checksum.partial_sum(addresses) + protocol + of_transport)


def _write_checksum(view: memoryview, at: int, value: int, *, is_udp: bool) -> None:
    view[at : at + 2] = (0xFFFF if is_udp and not value else value).to_bytes(2)


def finish_checksum(packet: memoryview, offload: Offload) -> None:
    """Finish the checksum of one whole packet: its field holds the sum of the pseudo header.

    An unfinished one inside a tunnel is a silent black hole at the far end.
    """
    start = offload.csum_start
    value = checksum.checksum(packet[start:])
    # A UDP checksum is told by its place; all others that are left to us are TCP's, where zero is a value like any
    # other.
    _write_checksum(packet, start + offload.csum_offset, value, is_udp=offload.csum_offset == 6)

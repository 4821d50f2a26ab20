"""THE per-packet module: the only loops that run once per packet, in plain Python. The reference for `rows_numpy`.

Every function here has a twin there with the same name, arguments and result, byte for byte.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from wgpy.constants import MESSAGE_TRANSPORT, TRANSPORT_HEADER_SIZE
from wgpy.wire import checksum
from wgpy.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.dataplane.slab import Arena, Buffer, Slab
    from wgpy.wire.virtio import Offload

__all__ = [
    "clear_padding",
    "count_same_heads",
    "find_runs",
    "is_one_flow",
    "read_counters",
    "write_counters",
    "write_index",
    "write_payloads",
    "write_segments",
]

# TCP flags that a row inside a run may carry, and that its last may (RFC 9293 3.1): ACK, and ACK with PSH.
ACK: Final = 0x10
ACK_PSH: Final = 0x18
PSH: Final = 0x08
# Where the addresses begin, by where the transport header does: they lie right in front of it.
ADDRESSES_AT: Final = {IPV4_HEADER_SIZE: 12, IPV6_HEADER_SIZE: 8}
# IP protocol number, by whether it is UDP.
PROTOCOL: Final = {False: 6, True: 17}

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


# --- superpackets ----------------------------------------------------------------------------------------------------


def clear_padding(slab: Slab, length: int) -> None:
    """Zero what follows the packet in every row but the last: no octet of an earlier packet may leave as padding.

    Args:
        slab: on its way out; its `length` is the padded one.
        length: octets of each packet.
    """
    zeros = bytes(slab.length - length)
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    for _ in range(slab.count - 1):
        view[at + length : at + slab.length] = zeros
        at += slab.stride


def write_payloads(slab: Slab, header_length: int, payload: int, octets: Buffer) -> None:
    """Deal octets out to the rows, each behind the place of its headers.

    Args:
        slab: on its way out.
        header_length: octets of headers in each row.
        payload: octets for each row but the last, which gets the rest.
        octets: at least one for each row.
    """
    source = memoryview(octets)
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE + header_length
    for first in range(0, len(source), payload):
        piece = source[first : first + payload]
        view[at : at + len(piece)] = piece
        at += slab.stride


def write_segments(
    slabs: Sequence[Slab], offload: Offload, sums: Sequence[int], last_flags: Sequence[int], *, counts_ids: bool
) -> None:
    """Give every row the headers of its first row: sequence number, IPv4 identification and checksums move on.

    Args:
        slabs: of one shape. The payload of every row is in place, and the first row has the headers of one full
            segment, without FIN and PSH, its transport checksum field zero and its IPv4 checksum right.
        offload: where the headers end, where the transport header begins, and the payload of one segment.
        sums: for each slab, of the pseudo header of one segment, folded.
        last_flags: for each slab, the TCP flags of its last row; not looked at for UDP.
        counts_ids: whether the IPv4 identification grows from row to row, as it must without DF (RFC 6864).
    """
    header_length, start, payload = offload.header_length, offload.csum_start, offload.gso_size
    length = header_length + payload
    field = start + offload.csum_offset
    for slab, pseudo, flags in zip(slabs, sums, last_flags, strict=True):
        view, first = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
        header = bytes(view[first : first + header_length])
        sequence = int.from_bytes(header[start + 4 : start + 8])
        identification = int.from_bytes(header[4:6])
        at = first
        for row in range(slab.count):
            if row:
                view[at : at + header_length] = header
            if counts_ids:
                view[at + 4 : at + 6] = ((identification + row) & 0xFFFF).to_bytes(2)
                view[at + 10 : at + 12] = bytes(2)
                view[at + 10 : at + 12] = checksum.checksum(view[at : at + start]).to_bytes(2)
            if not offload.is_udp:
                view[at + start + 4 : at + start + 8] = ((sequence + row * payload) & 0xFFFFFFFF).to_bytes(4)
                if row == slab.count - 1:
                    view[at + start + 13] = flags
            value = checksum.checksum(view[at + start : at + length], pseudo)
            # RFC 768: a UDP checksum of zero means none.
            view[at + field : at + field + 2] = (value or 0xFFFF if offload.is_udp else value).to_bytes(2)
            at += slab.stride


def find_runs(slabs: Sequence[Slab], offload: Offload) -> list[list[tuple[int, bool]]]:
    """Cut each slab into runs of rows that follow each other in one TCP stream or UDP flow.

    A row goes on with the run of the row before it when their headers are alike but for what joining makes good (IPv4
    identification and checksum, sequence number, transport checksum, PSH), when its sequence number follows, and when
    the one before it carries no PSH. Whether the first row of a run may be joined to at all is for the caller to say.

    Args:
        slabs: received rows without padding, of one shape, `last_length` equal to `length`.
        offload: the layout of a row: where the headers end, where the transport header begins, the payload.

    Returns:
        For each slab, for each run: its first row, and whether the checksums of all its rows are right, given that
        they are laid out so.
    """
    return [_runs_of(slab, offload) for slab in slabs]


def _runs_of(slab: Slab, offload: Offload) -> list[tuple[int, bool]]:
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    header_length, start = offload.header_length, offload.csum_start
    addresses, field = ADDRESSES_AT[start], start + offload.csum_offset
    of_pseudo_header = PROTOCOL[offload.is_udp] + slab.length - start
    runs: list[tuple[int, bool]] = []
    before, expected, is_pushed = b"", 0, False
    for row in range(slab.count):
        header = bytearray(view[at : at + header_length])
        is_intact = not checksum.checksum(view[at + addresses : at + slab.length], of_pseudo_header)
        if start == IPV4_HEADER_SIZE:
            is_intact = is_intact and not checksum.checksum(header[:start])
            header[4:6] = header[10:12] = bytes(2)
        sequence = 0
        if not offload.is_udp:
            sequence = int.from_bytes(header[start + 4 : start + 8])
            header[start + 4 : start + 8] = bytes(4)
            goes_on = sequence == expected and not is_pushed
            expected, is_pushed = (sequence + offload.gso_size) & 0xFFFFFFFF, bool(header[start + 13] & PSH)
            header[start + 13] &= 0xFF ^ PSH
        else:
            goes_on = True
        header[field : field + 2] = bytes(2)
        if row and goes_on and bytes(header) == before:
            runs[-1] = (runs[-1][0], runs[-1][1] and is_intact)
        else:
            runs.append((row, is_intact))
        before = bytes(header)
        at += slab.stride
    return runs

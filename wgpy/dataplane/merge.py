"""Received rows into as few writes as possible: packets of one flow become one superpacket, as the kernel's GRO does.

Most of what arrives is a slab that is one run of one TCP stream: one look at all rows shows it, and the write takes the
payload from where it lies. Where several streams share a slab it is cut between their runs first. What is mixed more
finely goes packet by packet through a table of open runs. Each flow leaves in the
order in which it came. The header of a superpacket is written last, when it is known what belongs to it.

Source: Linux net/ipv4/tcp_offload.c and udp_offload.c, functions *_gro_receive; RFC 9293; RFC 3168 section 5.3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.dataplane.rows import ACK, ACK_PSH
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.wire import checksum, virtio
from wgpy.wire.ip import IPV4_HEADER_SIZE
from wgpy.wire.virtio import Offload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wgpy.dataplane.slab import Slab

__all__ = ["Write", "merge"]

_MAX_LENGTH: Final = 65535
_U16: Final = struct.Struct(">H")
# As many as the kernel takes in one writev without a copy of its own list (UIO_FASTIOV is 8, UIO_MAXIOV 1024).
_MAX_MEMBERS: Final = 256
# Runs of fewer packets are joined sooner one by one.
_SHORT: Final = 4
_TCP: Final = 6
_UDP: Final = 17


class Write(NamedTuple):
    """What goes to the TUN device in one system call.

    Attributes:
        buffers: the ten octets of the offload header with the first packet, and then payload.
        packets: how many were joined.
    """

    buffers: list[memoryview]
    packets: int


class _Candidate(NamedTuple):
    """A packet that may be joined.

    Attributes:
        view: of its arena.
        at: where the packet begins; the offload header fits before it.
        length: octets of the packet.
        offload: its headers, and its payload as segment size.
        flow: what must agree for two packets to be joined.
        sequence: TCP sequence number, 0 for UDP.
        is_pushed: carries PSH.
    """

    view: memoryview
    at: int
    length: int
    offload: Offload
    flow: bytes
    sequence: int
    is_pushed: bool


class _Stream(NamedTuple):
    """A slab whose rows follow each other in one flow.

    Attributes:
        first: its first packet.
        pseudo: sum of the pseudo header of that packet, folded.
    """

    first: _Candidate
    pseudo: int


class _Run:
    """Packets of one flow that will leave together."""

    __slots__ = ("is_closed", "members", "next_sequence", "size", "total")

    def __init__(self, first: _Candidate) -> None:
        self.members = [first]
        self.size = first.offload.gso_size
        self.total = first.length
        self.next_sequence = (first.sequence + self.size) & 0xFFFFFFFF
        self.is_closed = first.is_pushed

    def takes(self, candidate: _Candidate) -> bool:
        """Add the packet at the end, or in front, if the rules allow it."""
        first, payload = self.members[0], candidate.offload.gso_size
        if (
            candidate.offload.csum_start != first.offload.csum_start
            or self.total + payload > _MAX_LENGTH
            or len(self.members) >= _MAX_MEMBERS
        ):
            return False
        is_tcp = not candidate.offload.is_udp
        if not self.is_closed and payload <= self.size and (not is_tcp or candidate.sequence == self.next_sequence):
            self.members.append(candidate)
            self.next_sequence = (self.next_sequence + payload) & 0xFFFFFFFF
            self.is_closed = payload < self.size or candidate.is_pushed
        elif (
            is_tcp
            and payload == self.size
            and not candidate.is_pushed
            and (candidate.sequence + payload) & 0xFFFFFFFF == first.sequence
            and (len(self.members) > 1 or first.offload.gso_size == payload)
        ):
            self.members.insert(0, candidate)
        else:
            return False
        self.total += payload
        return True


def merge(slabs: Sequence[Slab], *, joins_udp: bool, rows: Rows = selected) -> list[Write]:
    """Make the writes for received rows; the octets before each packet and its headers may be written over.

    Args:
        slabs: trimmed rows, in order.
        joins_udp: whether the device takes UDP superpackets.
        rows: the row functions to use.
    """
    if len(slabs) == 1 and slabs[0].count == 1:
        slab = slabs[0]
        return [_alone(slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE, slab.length)]
    # Runs and whole writes in order; runs become writes at the end.
    out: list[_Run | Write] = []
    open_runs: dict[bytes, _Run] = {}
    for slab, stream in _streams(slabs, rows, joins_udp=joins_udp):
        if stream is not None:
            # Whatever follows in this flow comes after it.
            open_runs.pop(stream.first.flow, None)
            out.append(_write_stream(slab, stream))
            continue
        view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
        for row in range(slab.count):
            length = slab.last_length if row == slab.count - 1 else slab.length
            _add(view, at, length, open_runs, out, joins_udp=joins_udp)
            at += slab.stride
    return [_write(run.members) if isinstance(run, _Run) else run for run in out]


def _add(
    view: memoryview,
    at: int,
    length: int,
    open_runs: dict[bytes, _Run],
    out: list[_Run | Write],
    *,
    joins_udp: bool,
) -> None:
    flow = _flow(view, at, length)
    candidate = None if flow is None else _candidate(view, at, length, flow, joins_udp=joins_udp)
    if candidate is None:
        # It may belong to any flow (a fragment, an option in front of the ports), or to this one: it overtakes nobody.
        if flow is not None:
            open_runs.pop(flow, None)
        elif open_runs and length >= 20 and _may_be_of_a_flow(view, at):
            open_runs.clear()
        out.append(_alone(view, at, length))
        return
    run = open_runs.get(candidate.flow)
    if (
        run is not None
        and _agrees(run.members[0], candidate)
        and _is_intact(candidate)
        and (len(run.members) > 1 or _is_intact(run.members[0]))
        and run.takes(candidate)
    ):
        return
    run = open_runs[candidate.flow] = _Run(candidate)
    out.append(run)


def _may_be_of_a_flow(view: memoryview, at: int) -> bool:
    if view[at] >> 4 == 4:
        return view[at + 9] in (_TCP, _UDP)
    # Extension headers may hide anything but ICMP, which stands right behind the header when it is alone.
    return view[at + 6] != 58


def _flow(view: memoryview, at: int, length: int) -> bytes | None:
    """Protocol, addresses and ports, if they stand where they usually do."""
    if view[at] == 0x45:
        if length >= 28 and view[at + 9] in (_TCP, _UDP) and not (view[at + 6] & 0x3F or view[at + 7]):
            return bytes(view[at + 9 : at + 10]) + bytes(view[at + 12 : at + 24])
    elif view[at] >> 4 == 6 and length >= 48 and view[at + 6] in (_TCP, _UDP):
        return bytes(view[at + 6 : at + 7]) + bytes(view[at + 8 : at + 44])
    return None


def _candidate(view: memoryview, at: int, length: int, flow: bytes, *, joins_udp: bool) -> _Candidate | None:
    start = 20 if view[at] >> 4 == 4 else 40
    transport = at + start
    if flow[0] == _UDP:
        if (
            not joins_udp
            or int.from_bytes(view[transport + 4 : transport + 6]) != length - start
            or length == start + 8
        ):
            return None
        # A zero checksum over IPv4 means none: joining would make one up.
        if view[transport + 6] == view[transport + 7] == 0:
            return None
        offload = Offload(start + 8, length - start - 8, start, virtio.UDP_CSUM_OFFSET, True)
        return _Candidate(view, at, length, offload, flow, 0, False)
    if length < start + 20:
        return None
    header_length = start + (view[transport + 12] >> 4) * 4
    flags = view[transport + 13]
    if header_length < start + 20 or header_length >= length or flags not in (ACK, ACK_PSH):
        return None
    offload = Offload(header_length, length - header_length, start, virtio.TCP_CSUM_OFFSET, False)
    sequence = int.from_bytes(view[transport + 4 : transport + 8])
    return _Candidate(view, at, length, offload, flow, sequence, flags == ACK_PSH)


def _agrees(first: _Candidate, other: _Candidate) -> bool:
    """Whether all that one header can say only once is the same: TTL, ToS, fragment bits, acknowledgement, options."""
    a, b, i, j = first.view, other.view, first.at, other.at
    if first.offload.header_length != other.offload.header_length:
        return False
    if a[i] >> 4 == 4:
        same = a[i + 1] == b[j + 1] and a[i + 6 : i + 9] == b[j + 6 : j + 9]
    else:
        same = a[i : i + 4] == b[j : j + 4] and a[i + 7] == b[j + 7]
    if not same or first.offload.is_udp:
        return same
    start, end = first.offload.csum_start, first.offload.header_length
    return (
        a[i + start + 8 : i + start + 13] == b[j + start + 8 : j + start + 13]
        and a[i + start + 14 : i + start + 16] == b[j + start + 14 : j + start + 16]
        and a[i + start + 18 : i + end] == b[j + start + 18 : j + end]
    )


def _pseudo(view: memoryview, at: int, offload: Offload, length: int) -> int:
    addresses = view[at + 12 : at + 20] if view[at] >> 4 == 4 else view[at + 8 : at + 40]
    protocol = _UDP if offload.is_udp else _TCP
    return checksum.folded(checksum.partial_sum(addresses) + protocol + length - offload.csum_start)


def _is_intact(candidate: _Candidate) -> bool:
    """Whether its checksums are right: a superpacket gets new ones, which would hide damage."""
    view, at, start = candidate.view, candidate.at, candidate.offload.csum_start
    if view[at] >> 4 == 4 and checksum.checksum(view[at : at + start]):
        return False
    pseudo = _pseudo(view, at, candidate.offload, candidate.length)
    return not checksum.checksum(view[at + start : at + candidate.length], pseudo)


def _streams(slabs: Sequence[Slab], rows: Rows, *, joins_udp: bool) -> Iterator[tuple[Slab, _Stream | None]]:
    """The slabs in order, each with whether all its rows can be joined as they are.

    Those of several streams come in pieces of one each. Slabs of one shape next to each other are looked at together.
    """
    layouts = [_layout(slab, joins_udp=joins_udp) for slab in slabs]
    position = 0
    while position < len(slabs):
        slab, layout = slabs[position], layouts[position]
        position += 1
        if layout is None:
            yield slab, None
            continue
        alike, shape = [slab], _shape_of_body(slab)
        while position < len(slabs) and layouts[position] == layout and _shape_of_body(slabs[position]) == shape:
            alike.append(slabs[position])
            position += 1
        found = rows.find_runs([_body(one) for one in alike], layout)
        for one, runs in zip(alike, found, strict=True):
            yield from _pieces(one, runs, layout, joins_udp=joins_udp)


def _layout(slab: Slab, *, joins_udp: bool) -> Offload | None:
    """How the rows of a slab are laid out if they are like the first; None when they are sooner joined one by one."""
    if slab.count < _SHORT:
        return None
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    flow = _flow(view, at, slab.length)
    first = None if flow is None else _candidate(view, at, slab.length, flow, joins_udp=joins_udp)
    return None if first is None else first.offload


def _pieces(
    slab: Slab, runs: list[tuple[int, bool]], layout: Offload, *, joins_udp: bool
) -> Iterator[tuple[Slab, _Stream | None]]:
    """One piece for each run; the slab itself when there is but one, or when they are too short to be worth it."""
    if len(runs) * _SHORT > slab.count:
        yield slab, None
        return
    ends = [row for row, _ in runs[1:]] + [slab.count]
    for (row, is_intact), end in zip(runs, ends, strict=True):
        piece = slab if len(runs) == 1 else slab.part(row, end - row)
        stream = _begins_stream(piece, layout, joins_udp=joins_udp) if is_intact else None
        if stream is None or _last_row_fits(piece, stream.first, joins_udp=joins_udp):
            yield piece, stream
        else:
            body = _body(piece)
            yield body, _begins_stream(body, layout, joins_udp=joins_udp)
            yield piece.part(piece.count - 1, 1), None


def _shape_of_body(slab: Slab) -> tuple[int, int]:
    return slab.stride, slab.count - (slab.last_length != slab.length)


def _body(slab: Slab) -> Slab:
    """The rows of full length."""
    return slab if slab.last_length == slab.length else slab.part(0, slab.count - 1)


def _begins_stream(slab: Slab, layout: Offload, *, joins_udp: bool) -> _Stream | None:
    """The first packet of a run, if the rest of it can be joined to it as far as its own headers and lengths tell."""
    view, at, length = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE, slab.length
    flow = _flow(view, at, length) if slab.count > 1 else None
    first = None if flow is None else _candidate(view, at, length, flow, joins_udp=joins_udp)
    if first is None or first.offload != layout or slab.last_length <= layout.header_length:
        return None
    if first.is_pushed or _joined_length(slab, layout) > _MAX_LENGTH:
        return None
    return _Stream(first, _pseudo(view, at, layout, length))


def _joined_length(slab: Slab, offload: Offload) -> int:
    return offload.header_length + slab.count * offload.gso_size - (slab.length - slab.last_length)


def _last_row_fits(slab: Slab, first: _Candidate, *, joins_udp: bool) -> bool:
    """Whether a last row that is shorter than the others follows them in their flow."""
    if slab.last_length == slab.length:
        return True
    view, offload, rows_before = first.view, first.offload, slab.count - 1
    at = first.at + rows_before * slab.stride
    if _flow(view, at, slab.last_length) != first.flow:
        return False
    last = _candidate(view, at, slab.last_length, first.flow, joins_udp=joins_udp)
    if last is None or not _agrees(first, last) or not _is_intact(last):
        return False
    return offload.is_udp or (
        last.sequence == first.sequence + rows_before * offload.gso_size & 0xFFFFFFFF
        and not _is_pushed(view, at - slab.stride, offload)
    )


def _write_stream(slab: Slab, stream: _Stream) -> Write:
    """One write for all rows; the payload is taken from where it lies."""
    first = stream.first
    view, at, length, offload = first.view, first.at, first.length, first.offload
    last_at = at + (slab.count - 1) * slab.stride
    payloads = slab.arena.payloads(slab.start, slab.stride, offload.header_length, offload.gso_size, slab.count)
    buffers = payloads[: slab.count]
    if slab.last_length != length:
        buffers[-1] = view[last_at + offload.header_length : last_at + slab.last_length]
    buffers[0] = view[at - virtio.HEADER_SIZE : at + length]
    is_pushed = not offload.is_udp and _is_pushed(view, last_at, offload)
    _write_header(first, _joined_length(slab, offload), stream.pseudo, is_pushed=is_pushed)
    return Write(buffers, slab.count)


def _is_pushed(view: memoryview, at: int, offload: Offload) -> bool:
    return view[at + offload.csum_start + 13] == ACK_PSH


def _alone(view: memoryview, at: int, length: int) -> Write:
    view[at - virtio.HEADER_SIZE : at] = virtio.PLAIN
    return Write([view[at - virtio.HEADER_SIZE : at + length]], 1)


def _write(members: list[_Candidate]) -> Write:
    first = members[0]
    view, at, offload = first.view, first.at, first.offload
    if len(members) == 1:
        return _alone(view, at, first.length)
    buffers = [view[at - virtio.HEADER_SIZE : at + first.length]]
    total = first.length
    for member in members[1:]:
        buffers.append(member.view[member.at + offload.header_length : member.at + member.length])
        total += member.offload.gso_size
    _write_header(first, total, _pseudo(view, at, offload, first.length), is_pushed=members[-1].is_pushed)
    return Write(buffers, len(members))


def _write_header(first: _Candidate, total: int, pseudo: int, *, is_pushed: bool) -> None:
    """Make the first packet's headers those of the whole, and say to the kernel how to cut it again.

    Args:
        first: the packet, with right checksums.
        total: octets of the whole.
        pseudo: sum of the pseudo header of the first packet.
        is_pushed: whether one of the packets carries PSH.
    """
    view, at, offload = first.view, first.at, first.offload
    header_length, gso_size, start, csum_offset, is_udp = offload
    if start == IPV4_HEADER_SIZE:
        gso_type = virtio.GSO_TCPV4
        field = _U16.unpack_from(view, at + 10)[0]
        _U16.pack_into(view, at + 2, total)
        _U16.pack_into(view, at + 10, checksum.updated(field, first.length, total))
    else:
        gso_type = virtio.GSO_TCPV6
        _U16.pack_into(view, at + 4, total - start)
    transport = at + start
    if is_udp:
        gso_type = virtio.GSO_UDP_L4
        _U16.pack_into(view, transport + 4, total - start)
    elif is_pushed:
        view[transport + 13] |= 0x08
    _U16.pack_into(view, transport + csum_offset, checksum.folded(pseudo + total - first.length))
    virtio.HEADER.pack_into(
        view, at - virtio.HEADER_SIZE, virtio.NEEDS_CSUM, gso_type, header_length, gso_size, start, csum_offset
    )

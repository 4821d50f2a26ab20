"""Received TCP rows to arrivals: neighbours of one flow that follow each other become one.

Most of what comes is a slab that is one run of one stream: one look at all rows shows it, checksums included. What is
mixed goes row by row, and joins the flow's last arrival of the batch where that loses nothing. Octets are copied once,
out of the receive buffer, which is used again for the next batch.

Never joined: SYN, FIN, RST, URG, ECE, CWR; another traffic class; a timestamp or acknowledgement that goes back; SACK
blocks; bare acknowledgements, each of which may count as a duplicate. PSH ends an arrival.

Source: RFC 9293; what may be joined follows from RFC 7323 4.3, RFC 5681 2 and RFC 3168 5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.dataplane.rows import ACK, ACK_PSH
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.addresses import is_martian
from wgpy.wire import ip, tcp
from wgpy.wire.checksum import checksum, partial_sum
from wgpy.wire.virtio import TCP_CSUM_OFFSET, Offload

if TYPE_CHECKING:
    from wgpy.dataplane.slab import Slab
    from wgpy.wire.tcp import Segment

__all__ = ["Arrival", "Coalescer"]

# An arrival is as much as one slab may hold, so that flows take turns.
_MAX_OCTETS: Final = 2**18


class Arrival:
    """Octets of one flow with one header: the first sequence number, the last acknowledgement.

    Attributes:
        key: remote address, local address, remote port, local port, as in the packet.
        segment: the header; its acknowledgement, window and echo are those of the last segment.
        length: octets of payload.
        count: segments.
        size: payload of the first.
        is_pushed: the last one carried PSH.
        has_mark: congestion was experienced (RFC 3168).
    """

    __slots__ = ("_parts", "count", "has_mark", "is_pushed", "key", "length", "segment", "size")

    def __init__(self, key: bytes, segment: Segment, part: bytes | memoryview, *, has_mark: bool) -> None:
        """One segment."""
        self.key = key
        self.segment = segment
        self.size = self.length = len(part)
        self._parts: list[bytes | memoryview] = [part]
        self.count = 1
        self.is_pushed = bool(segment.flags & tcp.PSH)
        self.has_mark = has_mark

    def octets(self) -> bytes:
        """The payload, copied."""
        return b"".join(self._parts)

    def takes(self, segment: Segment, part: bytes | memoryview, *, has_mark: bool) -> bool:
        """Add a segment at the end, if that loses nothing."""
        mine = self.segment
        if (
            self.is_pushed
            or not part
            or not self.length
            or (segment.flags != ACK and segment.flags != ACK_PSH)
            or mine.flags != ACK
            or segment.sequence != (mine.sequence + self.length) & 0xFFFFFFFF
            or segment.sack
            or mine.sack
            or has_mark != self.has_mark
            or (segment.acknowledgement - mine.acknowledgement) & 0xFFFFFFFF >= 0x80000000
            or self.length + len(part) > _MAX_OCTETS
        ):
            return False
        if segment.timestamps != mine.timestamps:
            if segment.timestamps is None or mine.timestamps is None:
                return False
            if (segment.timestamps[0] - mine.timestamps[0]) & 0xFFFFFFFF >= 0x80000000:
                return False
        if segment.acknowledgement != mine.acknowledgement or segment.window != mine.window:
            # RFC 7323 4.3: the first value is what is echoed; the last echo measures best.
            timestamps = mine.timestamps
            if timestamps is not None and segment.timestamps is not None:
                timestamps = timestamps[0], segment.timestamps[1]
            self.segment = mine._replace(
                acknowledgement=segment.acknowledgement, window=segment.window, timestamps=timestamps
            )
        self._parts.append(part)
        self.length += len(part)
        self.count += 1
        self.is_pushed = segment.flags == ACK_PSH
        return True


class Coalescer:
    """Arrivals of one batch, in order of their first segments within each flow."""

    __slots__ = ("_last", "_rows", "_verifies", "arrivals")

    def __init__(self, rows: Rows = selected, *, verifies: bool = True) -> None:
        """Make one with the row functions to use; it may be told not to look at checksums."""
        self._rows = rows
        self._verifies = verifies
        self.arrivals: list[Arrival] = []
        self._last: dict[bytes, Arrival] = {}

    def take(self) -> list[Arrival]:
        """What the batch gave; a new batch begins."""
        arrivals, self.arrivals = self.arrivals, []
        self._last.clear()
        return arrivals

    def whole_slab(self, slab: Slab) -> bool:
        """Take a slab of several rows if one look shows that it is one run of one stream."""
        view, at, length = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE, slab.length
        if view[at] == 0x45:
            if view[at + 9] != ip.TCP or view[at + 6] & 0x3F or view[at + 7] or length < 40:
                return False
            start, mark = 20, view[at + 1] & 3
            key = bytes(view[at + 12 : at + 24])
        elif view[at] >> 4 == 6 and length >= 60 and view[at + 6] == ip.TCP:
            start, mark = 40, view[at + 1] >> 4 & 3
            key = bytes(view[at + 8 : at + 44])
        else:
            return False
        if is_martian(key[: (len(key) - 4) // 2], key[(len(key) - 4) // 2 : -4]):
            return False
        header_length = start + (view[at + start + 12] >> 4 << 2)
        if header_length < start + 20 or header_length >= length or view[at + start + 13] != ACK:
            return False
        payload = length - header_length
        offload = Offload(header_length, payload, start, TCP_CSUM_OFFSET, False)
        body = slab if slab.last_length == length else slab.part(0, slab.count - 1)
        if self._rows.find_runs([body], offload) != [[(0, True)]]:
            return False
        try:
            segment = tcp.decode_untrusted(view, at + start, at + length)
        except BadPacket:
            return False
        if segment.sack:
            return False
        views = slab.arena.payloads(slab.start, slab.stride, header_length, payload, body.count)
        arrival = Arrival(key, segment, b"".join(views[: body.count]), has_mark=mark == 3)
        arrival.count = body.count
        arrival.size = payload
        last_at = at + (body.count - 1) * slab.stride
        arrival.is_pushed = view[last_at + start + 13] == ACK_PSH
        self.arrivals.append(arrival)
        self._last[key] = arrival
        return True

    def row(self, packet: memoryview, start: int, key: bytes, traffic_class: int) -> None:
        """Take one TCP packet, cut to its true length; the TCP header is at `start`.

        Raises:
            BadPacket: malformed, or a wrong checksum.
        """
        end = len(packet)
        segment = tcp.decode_untrusted(packet, start, end)
        if self._verifies:
            addresses = key[:-4]
            total = partial_sum(addresses) + ip.TCP + end - start
            if checksum(packet[start:], total):
                raise BadPacket(DropReason.TRANSPORT_CHECKSUM)
        part = packet[start + segment.header_length :]
        last = self._last.get(key)
        has_mark = traffic_class & 3 == 3
        if last is not None and last.takes(segment, part, has_mark=has_mark):
            return
        arrival = Arrival(key, segment, part, has_mark=has_mark)
        self.arrivals.append(arrival)
        self._last[key] = arrival

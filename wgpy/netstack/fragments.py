"""Fragments back into packets, and packets into fragments.

A fragment that overlaps another one spoils its whole packet, and what still comes of that packet is dropped too: no
sender has a reason to overlap, only somebody who wants two hosts to read the same packet differently. So the octets
that arrived may simply be counted against the octets that there are, in place of RFC 815's list of holes. What waits is
bounded in octets, in packets per source and in time; the oldest goes first.

Source: RFC 791 3.2, RFC 815, RFC 1122 3.3.2, RFC 5722, RFC 6864, RFC 6946, RFC 8200 4.5.
"""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING, Final, TypeAlias

from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.constants import (
    REASSEMBLY_OCTETS,
    REASSEMBLY_OVERHEAD,
    REASSEMBLY_PACKETS_PER_SOURCE,
    REASSEMBLY_TIMEOUT_V4,
    REASSEMBLY_TIMEOUT_V6,
)
from wgpy.wire import ip
from wgpy.wire.checksum import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.wire.ip import IpHeader

__all__ = ["Reassembler", "fragment_size", "fragments_of"]

# Version, source, destination, identification; and the protocol, which only IPv4 counts in (RFC 791, RFC 8200 4.5).
_Key: TypeAlias = tuple[int, bytes, bytes, int, int]

_MAX_LENGTH: Final = 65535
_FRAGMENT_HEADER: Final = 8


class _Unfinished:
    """A packet of which fragments are missing."""

    __slots__ = ("charge", "deadline", "first", "head", "is_spoilt", "offsets", "parts", "received", "total")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.offsets: list[int] = []
        self.parts: list[bytes] = []
        self.received = 0
        self.total: int | None = None
        # The headers of the whole, and the fragment that brought them.
        self.head = b""
        self.first = b""
        self.is_spoilt = False
        self.charge = 0

    def takes(self, offset: int, data: bytes, *, is_last: bool) -> bool:
        """Add a part; False when it contradicts what is there."""
        end = offset + len(data)
        total = end if is_last else self.total
        if total is not None and (
            end > total or (self.total not in (None, total)) or (self.offsets and self._end() > total)
        ):
            return False
        at = bisect(self.offsets, offset)
        if at and self.offsets[at - 1] + len(self.parts[at - 1]) > offset:
            return False
        if at < len(self.offsets) and end > self.offsets[at]:
            return False
        self.offsets.insert(at, offset)
        self.parts.insert(at, data)
        self.received += len(data)
        self.total = total
        return True

    def repeats(self, offset: int, data: bytes) -> bool:
        """Whether just this part is there already: the network may repeat a packet (RFC 8200 4.5)."""
        at = bisect(self.offsets, offset) - 1
        return at >= 0 and self.offsets[at] == offset and self.parts[at] == data

    def _end(self) -> int:
        return self.offsets[-1] + len(self.parts[-1])


class Reassembler:
    """Fragments that wait for the rest of their packets.

    Attributes:
        octets: what they are charged together.
    """

    def __init__(
        self,
        *,
        drop: Callable[[DropReason], None],
        expired: Callable[[bytes], None],
    ) -> None:
        """Start with none.

        Args:
            drop: called for every packet given up.
            expired: called with the first fragment of a packet whose rest never came, if that one did.
        """
        self._drop = drop
        self._expired = expired
        # In order of arrival, and so of deadlines, for each version.
        self._waiting: dict[int, dict[_Key, _Unfinished]] = {4: {}, 6: {}}
        self._by_source: dict[bytes, dict[_Key, None]] = {}
        self.octets = 0

    def __len__(self) -> int:
        """Packets that are not whole yet."""
        return sum(map(len, self._waiting.values()))

    def add_untrusted(self, packet: memoryview, header: IpHeader, now: float) -> bytes | None:
        """Take one fragment.

        Args:
            packet: with its headers; perhaps padded.
            header: of `packet`, with `fragment`.
            now: the time.

        Returns:
            The whole packet, when this was the last part that was missing.

        Raises:
            BadPacket: the fragment cannot be used; an overlap spoils its packet.
        """
        fragment = header.fragment
        assert fragment is not None, "only fragments are given to the reassembler"
        protocol = header.protocol if header.version == 4 else 0
        key = header.version, header.source, header.destination, fragment.identification, protocol
        unfinished = self._waiting[header.version].get(key)
        if unfinished is None:
            unfinished = self._begin(key, now)
        data = bytes(packet[header.payload_at : header.length])
        if unfinished.is_spoilt or not unfinished.takes(fragment.offset, data, is_last=fragment.is_last):
            if unfinished.is_spoilt or not unfinished.repeats(fragment.offset, data):
                self._spoil(unfinished)
                raise BadPacket(DropReason.FRAGMENT_OVERLAP)
            return None
        if not fragment.offset:
            unfinished.head = _whole_head(packet, header)
            unfinished.first = bytes(packet[: header.length])
        if unfinished.received == unfinished.total:
            self._forget(key)
            return _join(unfinished)
        self._charge(unfinished, len(data) + REASSEMBLY_OVERHEAD)
        self._evict(key)
        return None

    def _begin(self, key: _Key, now: float) -> _Unfinished:
        of_source = self._by_source.setdefault(key[1], {})
        if len(of_source) >= REASSEMBLY_PACKETS_PER_SOURCE:
            self._give_up(next(iter(of_source)), DropReason.FRAGMENT_LIMIT)
            of_source = self._by_source.setdefault(key[1], {})
        of_source[key] = None
        timeout = REASSEMBLY_TIMEOUT_V4 if key[0] == 4 else REASSEMBLY_TIMEOUT_V6
        unfinished = self._waiting[key[0]][key] = _Unfinished(now + timeout)
        self._charge(unfinished, REASSEMBLY_OVERHEAD)
        return unfinished

    def _charge(self, unfinished: _Unfinished, octets: int) -> None:
        unfinished.charge += octets
        self.octets += octets

    def _spoil(self, unfinished: _Unfinished) -> None:
        """Keep the name of the packet until its time is over, and nothing else (RFC 5722)."""
        unfinished.is_spoilt = True
        unfinished.offsets.clear()
        unfinished.parts.clear()
        unfinished.first = b""
        self._charge(unfinished, REASSEMBLY_OVERHEAD - unfinished.charge)

    def _evict(self, newest: _Key) -> None:
        while self.octets > REASSEMBLY_OCTETS:
            oldest = min(
                (next(iter(table.items())) for table in self._waiting.values() if table),
                key=lambda item: item[1].deadline - _timeout(item[0][0]),
            )[0]
            self._give_up(oldest, DropReason.FRAGMENT_LIMIT)
            if oldest == newest:
                return

    def _give_up(self, key: _Key, reason: DropReason) -> None:
        self._forget(key)
        self._drop(reason)

    def _forget(self, key: _Key) -> _Unfinished:
        unfinished = self._waiting[key[0]].pop(key)
        self.octets -= unfinished.charge
        of_source = self._by_source[key[1]]
        del of_source[key]
        if not of_source:
            del self._by_source[key[1]]
        return unfinished

    # --- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When the oldest packet is given up."""
        return min((next(iter(table.values())).deadline for table in self._waiting.values() if table), default=None)

    def handle_timer(self, now: float) -> None:
        """Give up what waited too long, and say so to its sender if it can know which packet is meant (RFC 792)."""
        for table in self._waiting.values():
            due = []
            for key, unfinished in table.items():
                if unfinished.deadline > now:
                    break
                due.append(key)
            for key in due:
                unfinished = self._forget(key)
                if not unfinished.is_spoilt:
                    self._drop(DropReason.FRAGMENT_TIMEOUT)
                if unfinished.first:
                    self._expired(unfinished.first)


def _timeout(version: int) -> float:
    return REASSEMBLY_TIMEOUT_V4 if version == 4 else REASSEMBLY_TIMEOUT_V6


def _whole_head(packet: memoryview, header: IpHeader) -> bytes:
    """The headers that the whole packet will have, but for its length."""
    head = bytearray(packet[: header.unfragmentable])
    if header.version == 4:
        head[6:8] = bytes(2)
    else:
        # The header before the fragment header names what that one named.
        at, named_at = ip.IPV6_HEADER_SIZE, 6
        while at < header.unfragmentable:
            at, named_at = at + 8 + packet[at + 1] * 8, at
        head[named_at] = header.protocol
    return bytes(head)


def _join(unfinished: _Unfinished) -> bytes:
    head = bytearray(unfinished.head)
    length = len(head) + unfinished.received
    if head[0] >> 4 == 4:
        if length > _MAX_LENGTH:
            # Each fragment fitted behind its own header, but not behind the first one's options.
            raise BadPacket(DropReason.FRAGMENT_MALFORMED)
        head[2:4] = length.to_bytes(2)
        head[10:12] = bytes(2)
        head[10:12] = checksum(head).to_bytes(2)
    else:
        head[4:6] = (length - ip.IPV6_HEADER_SIZE).to_bytes(2)
    return b"".join((head, *unfinished.parts))


# --- out -------------------------------------------------------------------------------------------------------------


def fragment_size(version: int, mtu: int) -> int:
    """Octets of payload in every fragment but the last: a multiple of 8."""
    header = ip.IPV4_HEADER_SIZE if version == 4 else ip.IPV6_HEADER_SIZE + _FRAGMENT_HEADER
    return (mtu - header) // 8 * 8


def fragments_of(
    source: bytes, destination: bytes, protocol: int, payload: bytes, *, identification: int, mtu: int
) -> list[bytes]:
    """One packet, or as many fragments as the MTU asks for: all of one length but the last.

    Args:
        source: 4 or 16 octets.
        destination: as many.
        protocol: of the payload.
        payload: transport header and all.
        identification: tells the fragments of one packet from those of another; 16 bits are used over IPv4.
        mtu: greatest packet, octets.
    """
    if ip.header_size(source) + len(payload) <= mtu:
        return [ip.encode_header(source, destination, protocol, len(payload)) + payload]
    if len(source) == 4:
        identification &= 0xFFFF
    size = fragment_size(4 if len(source) == 4 else 6, mtu)
    packets = []
    for offset in range(0, len(payload), size):
        part = payload[offset : offset + size]
        fragment = ip.Fragment(identification, offset, offset + size >= len(payload))
        packets.append(ip.encode_header(source, destination, protocol, len(part), fragment=fragment) + part)
    return packets

"""What is left of a connection that closed first: a small record, so that nothing old is taken for something new.

A new SYN may take its place when it cannot be an old one. An RST ends it when it is exact, as that of a peer which has
forgotten the connection is: it may be about to open the next one, and what RFC 1337 fears (an old RST, then old octets)
is guarded against by timestamps and by initial sequence numbers that go on counting. L does the same.

Source: RFC 9293 3.10.7.4, RFC 6191, RFC 1337, RFC 5961 3.2.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from wgpy.netstack.constants import NEVER
from wgpy.wire import tcp

if TYPE_CHECKING:
    from wgpy.netstack.emission import Headers
    from wgpy.wire.tcp import Segment

__all__ = ["TimeWait", "TimeWaitTable"]


class TimeWait:
    """One closed connection.

    Attributes:
        headers: to answer with.
        snd_nxt: SND.NXT, absolute.
        rcv_nxt: RCV.NXT, absolute.
        ts_recent: last timestamp of the peer; None without timestamps.
        ts_offset: of ours.
        window: the field that we said last: what was promised is not taken back.
        expires: when it may be forgotten.
    """

    __slots__ = ("expires", "headers", "rcv_nxt", "snd_nxt", "ts_offset", "ts_recent", "window")

    def __init__(
        self, headers: Headers, snd_nxt: int, rcv_nxt: int, window: int, ts_recent: int | None, ts_offset: int
    ) -> None:
        """Keep what is needed; the table says for how long."""
        self.headers = headers
        self.snd_nxt = snd_nxt
        self.rcv_nxt = rcv_nxt
        self.ts_recent = ts_recent
        self.ts_offset = ts_offset
        self.window = window
        self.expires = NEVER

    def gives_way_to(self, segment: Segment) -> bool:
        """Whether a SYN is surely newer than everything of this connection (RFC 6191 section 2)."""
        if segment.flags & (tcp.SYN | tcp.ACK | tcp.RST) != tcp.SYN:
            return False
        if self.ts_recent is not None and segment.timestamps is not None:
            ahead = (segment.timestamps[0] - self.ts_recent) & 0xFFFFFFFF
            if ahead:
                return ahead < 0x80000000
        return 0 < (segment.sequence - self.rcv_nxt) & 0xFFFFFFFF < 0x80000000

    def next_iss(self, proposed: int) -> int:
        """The initial sequence number of ours for the connection that takes its place: beyond all of this one's."""
        least = self.snd_nxt + 0xFFFF + 2  # L: what a window without scale may have left under way
        return proposed if (proposed - least) & 0xFFFFFFFF < 0x80000000 else least & 0xFFFFFFFF

    def is_ended_by(self, segment: Segment) -> bool:
        """Whether it is the RST of a peer that answers our acknowledgement of something it does not know."""
        return bool(segment.flags & tcp.RST) and segment.sequence == self.rcv_nxt & 0xFFFFFFFF

    def answer(self, segment: Segment, length: int, now: float) -> bytes | None:
        """The acknowledgement that a stray segment gets; None for what gets none."""
        if segment.flags & tcp.RST:
            return None  # RFC 1337: one that is not exact
        is_expected = segment.sequence == self.rcv_nxt & 0xFFFFFFFF and not length
        if is_expected and not segment.flags & (tcp.SYN | tcp.FIN):
            return None
        options = b""
        if self.ts_recent is not None:
            options = tcp.encode_timestamps((int(now * 1000) + self.ts_offset) & 0xFFFFFFFF, self.ts_recent)
        return self.headers.packet(self.snd_nxt, self.rcv_nxt, tcp.ACK, self.window, options)


class TimeWaitTable:
    """Records by flow, bounded: the oldest one goes first."""

    __slots__ = ("_limit", "_records", "_seconds")

    def __init__(self, limit: int, seconds: float) -> None:
        """Keep at most `limit` records for so many seconds each."""
        self._limit = limit
        self._seconds = seconds
        self._records: OrderedDict[bytes, TimeWait] = OrderedDict()

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._records)

    def __contains__(self, key: bytes) -> bool:
        """Whether a flow is there."""
        return key in self._records

    def add(self, key: bytes, record: TimeWait, now: float) -> None:
        """Keep a record from now on."""
        record.expires = now + self._seconds
        self._records[key] = record
        self._records.move_to_end(key)
        if len(self._records) > self._limit:
            self._records.popitem(last=False)

    def get(self, key: bytes) -> TimeWait | None:
        """The record of a flow."""
        return self._records.get(key)

    def renew(self, key: bytes, now: float) -> None:
        """The peer's FIN came again: the time starts over (RFC 9293 3.10.7.4)."""
        self._records[key].expires = now + self._seconds
        self._records.move_to_end(key)

    def discard(self, key: bytes) -> None:
        """A new connection takes its place."""
        self._records.pop(key, None)

    def next_deadline(self) -> float:
        """When the next one expires."""
        return next(iter(self._records.values())).expires if self._records else NEVER

    def expire(self, now: float) -> None:
        """Forget what is old enough."""
        while self._records and next(iter(self._records.values())).expires <= now:
            self._records.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._records.clear()

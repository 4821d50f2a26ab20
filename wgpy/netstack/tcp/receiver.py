"""What arrives: octets in order for the application, the rest as an interval set; the window; when to acknowledge.

    RCV.NXT - ready        RCV.NXT               edge
    | waits to be read     | pieces out of order |  nothing may be sent beyond
    |<------------------- capacity ------------->|

The promised edge never moves left, save by the granularity of a scaled window (RFC 7323 2.4). Acknowledgements are
decided once per batch: at once when the sender needs to know, otherwise with a short delay.

Source: RFC 9293 3.8.6.2 and 3.10.7.4, RFC 2018 section 4, RFC 2883, RFC 1122 4.2.3.2 and 4.2.3.3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from wgpy.netstack.constants import (
    DELAYED_ACK,
    MAX_PIECES,
    NEVER,
    QUICK_ACKS,
    RECEIVE_BUFFER,
    RECEIVE_BUFFER_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Octets = bytes | memoryview

__all__ = ["Piece", "Receiver"]


class Piece:
    """Neighbouring octets that are ahead of a hole: sequence numbers and the chunks between them."""

    __slots__ = ("chunks", "end", "start")

    def __init__(self, start: int, end: int, chunks: list[bytes]) -> None:
        """Take them over."""
        self.start = start
        self.end = end
        self.chunks = chunks


class Receiver:
    """The receiving half of one connection.

    Attributes:
        nxt: RCV.NXT, absolute.
        edge: the highest sequence number ever promised.
        ready: octets in order that the application did not read yet.
        capacity: size of the window when nothing waits to be read.
        limit: what `capacity` may grow to.
        scale: shift of the windows that we announce.
        mss: octets of a full segment as the peer seems to send them.
        fin: sequence number of the peer's FIN, once it was seen.
        pieces: what is out of order, by sequence number.
        ack_now: how many acknowledgements must be sent at once.
        ack_at: when a delayed one is due.
        ack_sent: RCV.NXT as last told to the peer.
    """

    __slots__ = (
        "_drained",
        "_duplicate",
        "_fresh",
        "_offset",
        "_order",
        "_queue",
        "_quick",
        "_tuned_at",
        "ack_at",
        "ack_now",
        "ack_sent",
        "capacity",
        "edge",
        "fin",
        "limit",
        "mss",
        "nxt",
        "pieces",
        "ready",
        "scale",
    )

    def __init__(self, limit: int = RECEIVE_BUFFER_MAX) -> None:
        """Promise nothing yet; sequence numbers follow with the peer's SYN."""
        self.nxt = 0
        self.edge = 0
        self.ready = 0
        self.limit = limit
        self.capacity = min(RECEIVE_BUFFER, limit)
        self.scale = 0
        self.mss = 536
        self.fin: int | None = None
        self.pieces: list[Piece] = []
        self.ack_now = 0
        self.ack_at = NEVER
        self.ack_sent = 0
        self._queue: deque[bytes] = deque()
        self._offset = 0  # octets of its first chunk that were read
        # Pieces, the one that grew last in front: RFC 2018 section 4 wants their blocks in this order.
        self._order: list[Piece] = []
        self._duplicate: tuple[int, int] | None = None
        self._quick = QUICK_ACKS
        self._fresh = 0
        self._drained = 0
        self._tuned_at = 0.0

    def start(self, irs: int) -> None:
        """The peer's SYN came with this sequence number."""
        self.nxt = self.ack_sent = irs + 1
        # What our SYN said, or will say: never scaled (RFC 7323 2.2).
        self.edge = self.nxt + min(self.capacity, 0xFFFF)

    # --- octets in ---------------------------------------------------------------------------------------------------

    def arrive(self, sequence: int, octets: bytes, *, acks_each: bool, segments: int) -> int:
        """Take octets from `sequence` on; what was there before or lies beyond the edge is left out.

        Args:
            sequence: absolute.
            octets: at least one.
            acks_each: the peer does not know SACK and counts duplicate acknowledgements instead.
            segments: how many were merged into this.

        Returns:
            How many octets are newly in order.
        """
        end = sequence + len(octets)
        edge = self.edge if self.fin is None else min(self.edge, self.fin)
        if end > edge:
            octets = octets[: max(edge - sequence, 0)]
            end = edge
            self.ack_now = max(self.ack_now, 1)
        if sequence < self.nxt:
            # RFC 2883 section 4: the duplicate part is reported.
            self._duplicate = sequence, min(end, self.nxt)
            self.ack_now = max(self.ack_now, 1)
            octets = octets[self.nxt - sequence :]
            sequence = self.nxt
        if not octets:
            return 0
        if sequence != self.nxt:
            self.ack_now = self.ack_now + segments if acks_each else max(self.ack_now, 1)
            self._insert(sequence, end, octets)
            return 0
        before = self.nxt
        pieces = self.pieces
        if not pieces:
            self._queue.append(octets)
            self.nxt = end
        else:
            self._fill(end, octets)
        fresh = self.nxt - before
        self.ready += fresh
        self._fresh += fresh
        return fresh

    def _fill(self, end: int, octets: bytes) -> None:
        """Octets at RCV.NXT while others wait: the hole closes, in part or wholly."""
        self.ack_now = max(self.ack_now, 1)
        pieces = self.pieces
        first = pieces[0]
        if end > first.start:
            # Keep what is held already; only a piece that is covered wholly gives way.
            while pieces and pieces[0].end <= end:
                self._order.remove(pieces.pop(0))
            if pieces and pieces[0].start < end:
                octets = octets[: pieces[0].start - end]
                end = pieces[0].start
        self._queue.append(octets)
        self.nxt = end
        if pieces and pieces[0].start == end:
            first = pieces.pop(0)
            self._order.remove(first)
            self._queue.extend(first.chunks)
            self.nxt = first.end

    def _insert(self, start: int, end: int, octets: bytes) -> None:
        """Lay octets between the pieces that are there; what is held already stays."""
        pieces = self.pieces
        base, first = start, start
        touched: Piece | None = None
        is_new = False
        while start < end and len(pieces) < MAX_PIECES:
            # Common: behind the last piece.
            at = len(pieces) if pieces and start >= pieces[-1].start else bisect_left(pieces, start, key=_start)
            if at == len(pieces) and pieces and start == pieces[-1].start:
                at -= 1
            previous = pieces[at - 1] if at else None
            if previous is not None and previous.end > start:
                start, touched = previous.end, previous
                continue
            following = pieces[at] if at < len(pieces) else None
            if following is not None and following.start == start:
                start, touched = following.end, following
                continue
            stop = end if following is None or following.start > end else following.start
            part = octets if start == base and stop == end else octets[start - base : stop - base]
            if previous is not None and previous.end == start:
                previous.chunks.append(part)
                previous.end = stop
                touched = previous
            else:
                touched = Piece(start, stop, [part])
                pieces.insert(at, touched)
                self._order.insert(0, touched)
                at += 1
            is_new = True
            if following is not None and following.start == stop:
                pieces.pop(at)
                self._order.remove(following)
                touched.chunks += following.chunks
                touched.end = following.end
            start = stop
        if not is_new:
            self._duplicate = first, end
        if touched is not None:
            self._touch(touched)

    def _touch(self, piece: Piece) -> None:
        if self._order[0] is not piece:
            self._order.remove(piece)
            self._order.insert(0, piece)

    def duplicate(self, start: int, end: int) -> None:
        """A segment that brought nothing new: say so in the next acknowledgement."""
        self._duplicate = start, end

    def sack_blocks(self, most: int) -> tuple[tuple[int, int], ...]:
        """Blocks for the next acknowledgement: a duplicate first, then what grew last; edges on the wire."""
        blocks = [(piece.start, piece.end) for piece in self._order[:most]]
        if self._duplicate is not None:
            blocks.insert(0, self._duplicate)
        return tuple((left & 0xFFFFFFFF, right & 0xFFFFFFFF) for left, right in blocks[:most])

    @property
    def has_blocks(self) -> bool:
        """Whether the next acknowledgement has something to say in SACK blocks."""
        return self._duplicate is not None or bool(self._order)

    # --- octets out --------------------------------------------------------------------------------------------------

    def read(self, most: int) -> bytes:
        """Take up to so many octets that are in order."""
        queue, offset = self._queue, self._offset
        if not queue or most <= 0:
            return b""
        first = queue[0]
        if len(first) - offset > most:
            self._offset = offset + most
            first = first[offset : offset + most]
        elif len(queue) == 1 or len(first) - offset == most:
            queue.popleft()
            self._offset = 0
            first = first[offset:] if offset else first
        else:
            parts = [first[offset:] if offset else first]
            most -= len(parts[0])
            queue.popleft()
            while queue and most >= len(queue[0]):
                part = queue.popleft()
                parts.append(part)
                most -= len(part)
            self._offset = most if queue else 0
            if self._offset:
                parts.append(queue[0][:most])
            first = b"".join(parts)
        self.ready -= len(first)
        self._drained += len(first)
        return first

    def discard(self) -> None:
        """Nobody will read any more."""
        self._queue.clear()
        self.pieces.clear()
        self._order.clear()
        self.ready = 0

    # --- the window --------------------------------------------------------------------------------------------------

    def tune(self, now: float, rtt: float, grow: Callable[[int], int]) -> None:
        """Double the window when the application drained half of it within a round trip (design 10.8).

        Args:
            now: the time.
            rtt: smoothed, 0 when unknown.
            grow: asks the stack for so many octets more, and says how many it gives.
        """
        if now - self._tuned_at < max(rtt, 0.001):
            return
        if self._drained * 2 >= self.capacity and self.capacity < self.limit:
            self.capacity += grow(min(self.capacity, self.limit - self.capacity))
        self._drained = 0
        self._tuned_at = now

    def window(self, *, is_scaled: bool = True) -> int:
        """The window field for a segment that leaves now, and promise what it says.

        Silly windows are not offered (RFC 1122 4.2.3.3): the edge moves by a segment or half of the buffer at least.
        """
        target = self.nxt - self.ready + self.capacity
        if target - self.edge >= min(self.mss, self.capacity // 2):
            self.edge = target
        field = self.edge - self.nxt
        if is_scaled:
            field >>= self.scale
        if field > 0xFFFF:
            field = 0xFFFF
            # What cannot be said is not promised; an edge said before stays.
        self.ack_sent = self.nxt
        return field

    def opens_by(self) -> int:
        """Octets by which the window would open if we said so now."""
        return self.nxt - self.ready + self.capacity - self.edge

    def window_is_worth_telling(self) -> bool:
        """After a read: whether the peer should hear of the room at once: two segments, and an eighth of the buffer.

        Less would be told with the next octets anyway; more would leave a part of the window unused for a round trip.
        """
        return self.opens_by() >= min(max(2 * self.mss, self.capacity // 8), self.capacity // 2)

    # --- acknowledgements --------------------------------------------------------------------------------------------

    def decide(self, now: float, srtt: float, *, is_pushed: bool) -> None:
        """At the end of a batch: acknowledge what arrived now or a little later (design 10.6).

        Args:
            now: the time.
            srtt: smoothed RTT, 0 when unknown.
            is_pushed: the batch ended with PSH.
        """
        fresh = self._fresh
        if not fresh or self.ack_now:
            return
        if fresh >= 2 * self.mss or self._quick > 0 or (is_pushed and fresh < self.mss):
            self.ack_now = 1
        elif self.ack_at == NEVER:
            self.ack_at = now + (min(DELAYED_ACK, max(srtt / 4, 0.001)) if srtt else DELAYED_ACK)

    def acknowledged(self) -> None:
        """A segment with our acknowledgement left."""
        if self._fresh and self._quick > 0:
            self._quick -= max(1, self._fresh // self.mss)
        self._fresh = 0
        self.ack_now = 0
        self.ack_at = NEVER
        self._duplicate = None


def _start(piece: Piece) -> int:
    return piece.start

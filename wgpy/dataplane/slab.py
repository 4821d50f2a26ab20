"""Slab: a run of equal rows in one buffer, laid out as the datagrams they will become, or as they were received.

    start                                  start + stride
    | headroom 16 | inner packet | tail 16 | headroom 16 | inner packet | tail 16 | ...

The headroom takes the header of a transport data message, the tail its tag: sealing and opening happen in place, and a
whole slab leaves in one UDP_SEGMENT send. Every row has the same length, only the last may be shorter. On the way out
the inner packets are padded and the rows of one slab share destination address and traffic class; on the way in the
stride is the size of the received datagrams, and the length that of the packet without padding.

A row object does not exist: rows are offsets. Loops over rows live in `rows` and `rows_numpy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from wgpy.constants import PADDING_MULTIPLE, TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Arena", "Buffer", "RowViews", "Slab", "padded_length"]

Buffer: TypeAlias = bytes | bytearray | memoryview
# Nonce, packet, and packet with its tag, for each row.
RowViews: TypeAlias = tuple[list[memoryview], list[memoryview], list[memoryview]]

# Shapes remembered per arena. A busy one sees a handful; a stranger one pays for its slices again.
_SHAPES_KEPT: Final = 256


class Arena:
    """A buffer that outlives its slabs, with the row views that earlier slabs of the same shape needed.

    Slicing a memoryview costs as much as a tenth of a seal, three times per row. A reader that puts its superpackets at
    the same few places again and again slices nothing after a while.

    Attributes:
        view: the whole buffer, writable.
    """

    __slots__ = ("_payloads", "_rows", "view")

    def __init__(self, buffer: Buffer | int) -> None:
        """Wrap a buffer, or make one of so many octets. What is read-only is copied: rows are opened in place."""
        view = memoryview(bytearray(buffer) if isinstance(buffer, int) else buffer)
        self.view = memoryview(bytearray(view)) if view.readonly else view
        self._rows: dict[tuple[int, int], RowViews] = {}
        self._payloads: dict[tuple[int, int, int, int], list[memoryview]] = {}

    def rows(self, start: int, stride: int, count: int) -> RowViews:
        """Views of at least `count` rows, all of full length: do not change the lists."""
        shape = start, stride
        views = self._rows.get(shape)
        if views is None:
            if len(self._rows) >= _SHAPES_KEPT:
                self._rows.clear()
            views = self._rows[shape] = ([], [], [])
        nonces, packets, sealed = views
        for row in range(len(nonces), count):
            at = start + row * stride
            nonces.append(self.view[at + 4 : at + TRANSPORT_HEADER_SIZE])
            packets.append(self.view[at + TRANSPORT_HEADER_SIZE : at + stride - TAG_SIZE])
            sealed.append(self.view[at + TRANSPORT_HEADER_SIZE : at + stride])
        return views

    def payloads(self, start: int, stride: int, header_length: int, payload: int, count: int) -> list[memoryview]:
        """Views of what follows the headers in at least `count` rows of one shape: do not change the list."""
        shape = start, stride, header_length, payload
        views = self._payloads.get(shape)
        if views is None:
            if len(self._payloads) >= _SHAPES_KEPT:
                self._payloads.clear()
            views = self._payloads[shape] = []
        for row in range(len(views), count):
            at = start + row * stride + TRANSPORT_HEADER_SIZE + header_length
            views.append(self.view[at : at + payload])
        return views


class Slab:
    """Equal rows in one arena.

    Attributes:
        arena: where they lie.
        start: offset of the first row's headroom.
        stride: from row to row; on the way out `length` + 32.
        count: how many rows.
        length: octets of inner packet in each row but the last.
        last_length: octets of inner packet in the last row, at most `length`.
        is_sealed: the rows are transport data messages now.

    Example:
        >>> slab = wgpy.Slab.of_packet(b"E" + bytes(20), mtu=1420)
        >>> slab.count, slab.length, slab.size  # padded to 16; 32 octets more on the wire
        (1, 32, 64)
    """

    __slots__ = ("arena", "count", "is_sealed", "last_length", "length", "start", "stride")

    def __init__(
        self,
        arena: Arena,
        start: int,
        stride: int,
        count: int,
        length: int,
        last_length: int | None = None,
        *,
        is_sealed: bool = False,
    ) -> None:
        """Name the rows; nothing is copied."""
        self.arena = arena
        self.start = start
        self.stride = stride
        self.count = count
        self.length = length
        self.last_length = length if last_length is None else last_length
        self.is_sealed = is_sealed

    @classmethod
    def of_packet(cls, packet: Buffer, mtu: int) -> Slab:
        """A slab of one row: a copy of one packet, padded. An empty packet makes a keepalive, which is not padded."""
        length = padded_length(len(packet), mtu)
        buffer = bytearray(length + TRANSPORT_OVERHEAD)
        buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + len(packet)] = packet
        return cls(Arena(buffer), 0, len(buffer), 1, length)

    def copy(self) -> Slab:
        """The same rows in a buffer of their own, for whoever keeps them longer than their reader."""
        return Slab(
            Arena(bytearray(self.datagrams)),
            0,
            self.stride,
            self.count,
            self.length,
            self.last_length,
            is_sealed=self.is_sealed,
        )

    def part(self, first: int, count: int) -> Slab:
        """The rows from `first` on, `count` of them, in the same arena."""
        is_to_the_end = first + count == self.count
        return Slab(
            self.arena,
            self.start + first * self.stride,
            self.stride,
            count,
            self.last_length if is_to_the_end and count == 1 else self.length,
            self.last_length if is_to_the_end else self.length,
            is_sealed=self.is_sealed,
        )

    def views(self) -> RowViews:
        """Nonce, packet and packet with tag of each row of a slab on its way out, or as received: untrimmed."""
        nonces, packets, sealed = self.arena.rows(self.start, self.stride, self.count)
        count = self.count
        if len(nonces) != count:
            nonces, packets, sealed = nonces[:count], packets[:count], sealed[:count]
        if self.last_length + TRANSPORT_OVERHEAD != self.stride:
            at = self.start + (count - 1) * self.stride + TRANSPORT_HEADER_SIZE
            packets, sealed = packets[:], sealed[:]
            packets[-1] = self.arena.view[at : at + self.last_length]
            sealed[-1] = self.arena.view[at : at + self.last_length + TAG_SIZE]
        return nonces, packets, sealed

    def __iter__(self) -> Iterator[memoryview]:
        """The inner packet of each row."""
        view, length = self.arena.view, self.length
        at = self.start + TRANSPORT_HEADER_SIZE
        for _ in range(self.count - 1):
            yield view[at : at + length]
            at += self.stride
        yield view[at : at + self.last_length]

    @property
    def size(self) -> int:
        """Octets of all datagrams that the slab is on its way out."""
        return (self.count - 1) * self.stride + self.last_length + TRANSPORT_OVERHEAD

    @property
    def octets(self) -> int:
        """Octets of all inner packets."""
        return (self.count - 1) * self.length + self.last_length

    @property
    def datagrams(self) -> memoryview:
        """The datagrams back to back."""
        return self.arena.view[self.start : self.start + self.size]

    @property
    def destination(self) -> bytes:
        """Destination address of the first packet, 4 or 16 octets; the packet has been checked to be whole."""
        view, at = self.arena.view, self.start + TRANSPORT_HEADER_SIZE
        if view[at] >> 4 == 4:
            return bytes(view[at + 16 : at + 20])
        return bytes(view[at + 24 : at + 40])

    @property
    def traffic_class(self) -> int:
        """TOS or traffic class of the first packet; 0 for a keepalive."""
        if not self.length:
            return 0
        view, at = self.arena.view, self.start + TRANSPORT_HEADER_SIZE
        if view[at] >> 4 == 4:
            return view[at + 1]
        return (view[at] & 0x0F) << 4 | view[at + 1] >> 4

    def __repr__(self) -> str:
        """The shape, no content."""
        return f"<Slab {self.count} x {self.length} at {self.start}, stride {self.stride}>"


def padded_length(length: int, mtu: int) -> int:
    """Octets of a packet with its padding: a multiple of 16, but never beyond the MTU (whitepaper 5.4.6).

    A packet above the MTU, as after the MTU was lowered, is padded as its last fragment would be.
    """
    within = length if length <= mtu else length % mtu
    return length - within + min(mtu, -(-within // PADDING_MULTIPLE) * PADDING_MULTIPLE)

"""DatagramBatch: one receive or one send, as UDP_GRO and UDP_SEGMENT deal in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.dataplane.slab import Arena, Buffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wgpy.config import Endpoint

__all__ = ["DatagramBatch"]


class DatagramBatch:
    """Datagrams of one size, back to back, to or from one endpoint; the last may be shorter.

    Attributes:
        arena: the buffer that they lie in.
        segment_size: octets of each datagram but the last.
        remote: where they go, or came from.
        start: offset of the first.
        length: octets of all together.
        local: the local address and interface that was hit or shall be used: whatever the owner of the sockets put
            there.
        tos: outer traffic class, DSCP and ECN bits.
        hop_limit: of the outer headers; 0 for whatever the system gives.
        owner: for the engine: whose counters an unsent batch must be taken off again.

    Example:
        >>> batch = wgpy.DatagramBatch(bytearray(b"aaaabbbbcc"), 4, wgpy.Endpoint("192.0.2.1", 51820))
        >>> [bytes(datagram) for datagram in batch]
        [b'aaaa', b'bbbb', b'cc']
    """

    __slots__ = ("arena", "hop_limit", "length", "local", "owner", "remote", "segment_size", "start", "tos")

    def __init__(
        self,
        buffer: Arena | Buffer,
        segment_size: int,
        remote: Endpoint,
        *,
        start: int = 0,
        length: int | None = None,
        local: object | None = None,
        tos: int = 0,
        hop_limit: int = 0,
        owner: object | None = None,
    ) -> None:
        """Name the datagrams. Nothing is copied, unless the buffer is read-only.

        Args:
            buffer: an arena, or any buffer.
            segment_size: octets of each datagram but the last.
            remote: where they go, or came from.
            start: offset of the first in `buffer`.
            length: octets of all together; None means up to the end of the buffer.
            local: the local address that was hit or shall be used.
            tos: outer traffic class.
            hop_limit: of the outer headers; 0 for whatever the system gives.
            owner: for the engine.
        """
        self.arena = buffer if isinstance(buffer, Arena) else Arena(buffer)
        self.segment_size = segment_size
        self.remote = remote
        self.start = start
        self.length = len(self.arena.view) - start if length is None else length
        self.local = local
        self.tos = tos
        self.hop_limit = hop_limit
        self.owner = owner

    @property
    def data(self) -> memoryview:
        """All datagrams in one view, ready for one UDP_SEGMENT send."""
        return self.arena.view[self.start : self.start + self.length]

    @property
    def count(self) -> int:
        """How many datagrams; an empty one is one."""
        return max(1, -(-self.length // max(1, self.segment_size)))

    def __iter__(self) -> Iterator[memoryview]:
        """Each datagram."""
        data, size = self.data, max(1, self.segment_size)
        for offset in range(0, max(1, self.length), size):
            yield data[offset : offset + size]

    def arriving_from(self, endpoint: Endpoint) -> DatagramBatch:
        """The same datagrams as the other end receives them.

        For tests and for programs that carry datagrams themselves.
        """
        return DatagramBatch(
            self.arena, self.segment_size, endpoint, start=self.start, length=self.length, tos=self.tos
        )

    def __repr__(self) -> str:
        """The shape, no content."""
        return f"<DatagramBatch {self.count} x {self.segment_size} {self.remote}>"

"""DatagramBatch: one receive or one send, as UDP_GRO and UDP_SEGMENT deal in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wgpy.config import Endpoint

__all__ = ["DatagramBatch"]


@dataclass(slots=True, eq=False)
class DatagramBatch:
    """Datagrams of one size, back to back, to or from one endpoint; the last may be shorter.

    Attributes:
        buffer: where they lie.
        segment_size: octets of each datagram but the last.
        remote: where they go, or came from.
        start: offset of the first in `buffer`.
        length: octets of all together; None means up to the end of the buffer.
        local: the local address and interface that was hit or shall be used; whatever the owner of the sockets put there.
        tos: outer traffic class, DSCP and ECN bits.
        owner: for the engine: whose counters an unsent batch must be taken off again.
    """

    buffer: bytes | bytearray | memoryview
    segment_size: int
    remote: Endpoint
    start: int = field(default=0, kw_only=True)
    length: int = field(default=-1, kw_only=True)
    local: object | None = field(default=None, kw_only=True)
    tos: int = field(default=0, kw_only=True)
    owner: object | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        """Fill in the length."""
        if self.length < 0:
            self.length = len(self.buffer) - self.start

    @property
    def data(self) -> memoryview:
        """All datagrams in one view, ready for one UDP_SEGMENT send."""
        return memoryview(self.buffer)[self.start : self.start + self.length]

    @property
    def count(self) -> int:
        """How many datagrams."""
        return -(-self.length // self.segment_size) if self.segment_size else 1

    def __iter__(self) -> Iterator[memoryview]:
        """Each datagram."""
        data, size = self.data, self.segment_size
        if not size:
            yield data
        for offset in range(0, self.length, size or 1):
            yield data[offset : offset + size]

    def arriving_from(self, endpoint: Endpoint) -> DatagramBatch:
        """The same datagrams as the other end receives them; for tests and for programs that carry datagrams themselves."""
        return replace(self, remote=endpoint, local=None, owner=None)

"""What the application wrote and the peer did not acknowledge yet, by sequence number.

bytes are kept by reference; many small writes share a growing chunk. Nothing is ever moved: what was acknowledged is
forgotten chunk by chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, TypeAlias

__all__ = ["SendBuffer"]

# Writes below this are copied into a shared chunk: an object for each costs more than its copy.
_SMALL: Final = 2048
_SHARED_CHUNK: Final = 16 * 1024
# What is left of a large object pins all of it: it is copied out when less than this share is left.
_PINNED_SHARE: Final = 4
_COMPACT_AFTER: Final = 64

Octets: TypeAlias = bytes | bytearray | memoryview


class SendBuffer:
    """Octets from `start` to `end`, sequence numbers absolute."""

    __slots__ = ("_chunks", "_first", "_hint", "_starts", "end", "start")

    def __init__(self, start: int) -> None:
        """Begin empty at a sequence number."""
        self.start = start
        self.end = start
        self._chunks: list[memoryview | bytearray] = []
        self._starts: list[int] = []
        self._first = 0
        self._hint = 0

    def __len__(self) -> int:
        """Octets held."""
        return self.end - self.start

    def append(self, data: Octets, room: int) -> int:
        """Take up to `room` octets of `data`: how many."""
        size = min(len(data), room)
        if size <= 0:
            return 0
        if size < _SMALL:
            last = self._chunks[-1] if len(self._chunks) > self._first else None
            if isinstance(last, bytearray) and len(last) + size <= _SHARED_CHUNK:
                last += data[:size]
            else:
                self._add(bytearray(data[:size]))
        elif _is_unchanging(data) and size * _PINNED_SHARE >= len(data):
            self._add(memoryview(data)[:size])
        else:
            self._add(memoryview(bytes(memoryview(data)[:size])))
        self.end += size
        return size

    def _add(self, chunk: memoryview | bytearray) -> None:
        self._chunks.append(chunk)
        self._starts.append(self.end)

    def octets(self, start: int, end: int) -> bytes | memoryview:
        """What lies between two sequence numbers, without a copy when it is in one chunk."""
        at = self._hint
        starts = self._starts
        if not (self._first <= at < len(starts) and starts[at] <= start) or (
            at + 1 < len(starts) and starts[at + 1] <= start
        ):
            at = bisect_right(starts, start, lo=self._first) - 1
        offset = start - starts[at]
        need = end - start
        chunk = self._chunks[at]
        if len(chunk) - offset >= need:
            self._hint = at
            piece = chunk[offset : offset + need]
            return bytes(piece) if isinstance(piece, bytearray) else piece
        pieces: list[memoryview | bytearray] = []
        while need:
            piece = self._chunks[at][offset : offset + need]
            pieces.append(piece)
            need -= len(piece)
            offset = 0
            at += 1
        self._hint = at - 1
        return b"".join(pieces)

    def release(self, una: int) -> None:
        """Forget what is below `una`."""
        if una <= self.start:
            return
        self.start = una = min(una, self.end)
        starts, first = self._starts, self._first
        last = len(starts) - 1
        while first < last and starts[first + 1] <= una:
            self._chunks[first] = bytearray()
            first += 1
        self._first = first
        if una == self.end:
            self._chunks.clear()
            starts.clear()
            self._first = self._hint = 0
            return
        chunk = self._chunks[first]
        if isinstance(chunk, memoryview):
            left = starts[first] + len(chunk) - una
            if left * _PINNED_SHARE < len(chunk) and len(chunk) > _SHARED_CHUNK:
                self._chunks[first] = memoryview(bytes(chunk[-left:]))
                starts[first] = una
        if first > _COMPACT_AFTER:
            del self._chunks[:first], starts[:first]
            self._hint = max(self._hint - first, 0)
            self._first = 0


def _is_unchanging(data: Octets) -> bool:
    """Whether nobody can write to it while we keep a reference: bytes, or a part of some."""
    return isinstance(data, bytes) or (isinstance(data, memoryview) and isinstance(data.obj, bytes))

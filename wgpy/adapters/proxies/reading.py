"""Reading a greeting from a stream: so many octets, or up to a blank line, and the rest handed back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from wgpy.adapters.net import reset_at_close

if TYPE_CHECKING:
    from wgpy.adapters.net import Stream

__all__ = ["BufferedStream"]


class BufferedStream:
    """A stream with what was read too much in front of it; a `Stream` itself."""

    def __init__(self, stream: Any) -> None:
        """Read from this stream."""
        self.stream: Stream = stream
        self._buffer = bytearray()

    async def read_exactly(self, count: int) -> bytes:
        """The next octets.

        Raises:
            trio.BrokenResourceError: it ended before.
        """
        while len(self._buffer) < count:
            await self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read_until(self, mark: bytes, limit: int) -> bytes | None:
        """Everything up to the mark and with it; None if that is longer than the limit.

        Raises:
            trio.BrokenResourceError: it ended before.
        """
        searched = 0
        while (at := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > limit:
                return None
            searched = max(0, len(self._buffer) - len(mark) + 1)
            await self._fill()
        if at > limit:
            return None
        return await self.read_exactly(at + len(mark))

    def push_back(self, octets: bytes) -> None:
        """Let octets be read again, before all others."""
        self._buffer[:0] = octets

    async def _fill(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("the client left in the middle of its greeting")
        self._buffer += data

    # --- what a Stream does ------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return when there is room."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What was read too much, then what comes."""
        if self._buffer:
            await trio.lowlevel.checkpoint()
            return await self.read_exactly(min(max_bytes or len(self._buffer), len(self._buffer)))
        return await self.stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self.stream.send_eof()

    def abort(self) -> None:
        """Let the end be a reset."""
        reset_at_close(self.stream)

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()

"""TLS as a client over any stream, giving everything that lies there decrypted at once.

trio's own SSLStream gives one record a read. An API server puts every line of a followed log into a record of its own,
so that four megabytes would be read, parsed, sealed and sent in a thousand steps instead of some twenty.

    transport -> incoming BIO -> read until nothing is left -> one piece         write -> outgoing BIO -> transport
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

import trio

__all__ = ["GATHERED", "TlsStream", "client_context"]

# Octets that are gathered into one piece at most: what may lie between two ends beside their sockets' buffers.
GATHERED: Final = 256 * 1024
_RECORD: Final = 16384


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that verifies certificate and name, for HTTP/1.1, and never negotiates again.

    Raises:
        OSError: the file cannot be read, or holds no certificate (SSLError).
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class TlsStream(trio.abc.Stream):
    """A verified connection; one task may send while another one receives."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, server_hostname: str) -> None:
        """Wrap a fresh connection; `do_handshake` comes next."""
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._sending = trio.Lock()
        self._damage: ssl.SSLError | None = None

    async def do_handshake(self) -> None:
        """Shake hands.

        Raises:
            SSLError: what TLS refused; SSLCertVerificationError for a certificate that is not to be trusted.
            BrokenResourceError: the connection broke.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
                    await self._flush()  # the alert that tells the server why
                raise
            else:
                await self._flush()
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        left = memoryview(data)
        async with self._sending:
            try:
                while left:
                    left = left[self._tls.write(left) :]
            except ssl.SSLError as problem:
                raise trio.BrokenResourceError(str(problem)) from problem
            await self._transport.send_all(self._outgoing.read())

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        async with self._sending:
            await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Everything that has arrived, up to `GATHERED` octets; waits only when that is nothing. b"" at the end.

        A server that hangs up without saying so in TLS has ended, too: the framing of HTTP shows what was cut short.
        """
        most = GATHERED if max_bytes is None else max_bytes
        if most < 1:
            raise ValueError(f"max_bytes must be at least 1, got {most}")
        await trio.lowlevel.checkpoint()
        while (piece := self._decrypt(most)) is None:
            await self._fill()
        if self._outgoing.pending:
            await self._flush()  # a key update wants an answer
        return piece

    def _decrypt(self, most: int) -> bytes | None:
        """What can be decrypted now; b"" at the end, None when more must arrive."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < most and self._damage is None:
                piece = self._tls.read(min(most - size, _RECORD))
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as problem:
            self._damage = problem  # what came whole before it is given first
        if self._damage is not None and not pieces:
            raise trio.BrokenResourceError(str(self._damage)) from self._damage
        return b"".join(pieces)

    async def _fill(self) -> None:
        data = await self._transport.receive_some(GATHERED)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            if self._outgoing.pending:
                await self._transport.send_all(self._outgoing.read())

    async def aclose(self) -> None:
        """Hang up, without a word in TLS: what is unread is not wanted."""
        await self._transport.aclose()

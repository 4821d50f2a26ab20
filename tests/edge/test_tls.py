"""TLS that gathers: what lies there decrypted is one piece, however many records it came in."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trio
import trio.testing
import trustme

from edge_agent.tls import GATHERED, TlsStream, client_context


class Wire(trio.abc.Stream):
    """A transport to a TLS server in memory; counts what is read and sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.is_closed = False
        self.reads = self.sends = 0
        self._news = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sends += 1
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLError):
            self.server.do_handshake()
        self.wake()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.outgoing.pending and not self.is_closed:
            await self._news.wait()
        self.reads += 1
        return self.outgoing.read(max_bytes or -1)

    async def aclose(self) -> None:
        self.is_closed = True

    def write(self, data: bytes) -> None:
        """One record."""
        self.server.write(data)
        self.wake()

    def wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


async def connected() -> tuple[TlsStream, Wire]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)
    trusting = client_context(None)
    ca.configure_trust(trusting)
    wire = Wire(context)
    stream = TlsStream(wire, trusting, "api.test")
    await stream.do_handshake()
    wire.reads = wire.sends = 0
    return stream, wire


async def test_records_that_lie_there_are_one_piece() -> None:
    """A thousand lines of a log, each a record of its own, are a handful of reads."""
    stream, wire = await connected()
    for _ in range(1000):
        wire.write(b"x" * 1024)
    pieces = []
    while sum(map(len, pieces)) < 1000 * 1024:
        pieces.append(await stream.receive_some())
    assert set(b"".join(pieces)) == set(b"x")
    assert len(pieces) <= 1000 * 1024 // GATHERED + 2
    assert max(map(len, pieces)) <= GATHERED


async def test_what_is_there_is_given_without_waiting_for_more() -> None:
    stream, wire = await connected()
    wire.write(b"one line\n")
    with trio.fail_after(5):
        assert await stream.receive_some() == b"one line\n"


async def test_a_large_piece_is_sent_in_one_step() -> None:
    stream, wire = await connected()
    await stream.send_all(b"y" * GATHERED)
    assert wire.sends == 1
    received = b""
    while len(received) < GATHERED:
        received += wire.server.read(65536)
    assert received == b"y" * GATHERED


async def test_the_end_is_given_after_what_came_before_it() -> None:
    """Said in TLS or not: HTTP's framing shows what was cut short."""
    for is_polite in (True, False):
        stream, wire = await connected()
        wire.write(b"last")
        if is_polite:
            with pytest.raises(ssl.SSLWantReadError):
                wire.server.unwrap()
        wire.is_closed = True
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""


async def test_damaged_records_break_the_stream_behind_what_was_whole() -> None:
    stream, wire = await connected()
    wire.write(b"whole")
    whole = wire.outgoing.read()
    wire.write(b"damaged")
    damaged = bytearray(wire.outgoing.read())
    damaged[-1] ^= 1
    wire.outgoing.write(whole + damaged)
    assert await stream.receive_some() == b"whole"
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_certificate_for_another_name_is_refused() -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("other.test").configure_cert(context)
    trusting = client_context(None)
    ca.configure_trust(trusting)
    with pytest.raises(ssl.SSLCertVerificationError):
        await TlsStream(Wire(context), trusting, "api.test").do_handshake()


async def test_a_read_of_a_certain_size_leaves_the_rest() -> None:
    stream, wire = await connected()
    wire.write(b"abcdef")
    assert await stream.receive_some(2) == b"ab"
    assert await stream.receive_some() == b"cdef"
    with pytest.raises(ValueError, match="at least 1"):
        await stream.receive_some(0)

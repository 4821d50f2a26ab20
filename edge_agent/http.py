"""HTTP/1.1 over a stream, by h11: strict, without redirects, a read and a send for everything that is there at once.

    HttpEnd      either end of a connection: pieces of bodies in and out
    Connection   the client's: whole answers for `kube` and `hubapi`, streams for `apiproxy`

What the other end sends is never trusted: heads are bounded by h11, bodies by whoever reads them.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import h11
import trio

from edge_agent.dial import Origin, Proxy, open_stream
from edge_agent.tls import GATHERED

__all__ = ["Answer", "Connection", "Headers", "HttpEnd", "Piece", "open_connection"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
_HEAD_LIMIT: Final = 65536
_LINE_LIMIT: Final = 4 * 2**20


class Piece(NamedTuple):
    """A part of a body.

    Attributes:
        data: may be empty.
        is_last: the body is over.
    """

    data: bytes
    is_last: bool


class Answer(NamedTuple):
    """A whole answer.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: all of it.
    """

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first of this name."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for one, value in self.headers if one == wanted), None)


class HttpEnd:
    """One end of a connection.

    Attributes:
        http: h11's state of both ends.
    """

    def __init__(self, stream: trio.abc.Stream, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        """Take over a stream."""
        self.http = h11.Connection(role, max_incomplete_event_size=_HEAD_LIMIT)
        self._stream = stream

    async def send(self, *events: h11.Event) -> None:
        """Send all of this at once.

        Raises:
            BrokenResourceError: the other end hung up.
        """
        octets = b"".join(part for event in events for part in self.http.send_with_data_passthrough(event) or ())
        if octets:
            await self._stream.send_all(octets)

    async def send_body(self, *events: h11.Event, piece: Piece) -> None:
        """Send a piece of a body behind other events."""
        body: list[h11.Event] = [h11.Data(data=piece.data)] if piece.data else []
        await self.send(*events, *body, *([h11.EndOfMessage()] if piece.is_last else []))

    async def next_event(self) -> Any:
        """The next event, of h11.

        Raises:
            BrokenResourceError: the connection broke.
            RemoteProtocolError: this is no HTTP.
        """
        while (event := self.http.next_event()) is h11.NEED_DATA:
            await self.fill()
        return event

    async def fill(self) -> int:
        """Take what has arrived, or wait for it; its octets, 0 at the end."""
        data = await self._stream.receive_some(GATHERED)
        self.http.receive_data(bytes(data))
        return len(data)

    def take(self) -> Piece:
        """Everything of the body that has been received so far.

        Raises:
            RemoteProtocolError: the other end hung up in the middle, or broke the framing.
        """
        pieces: list[bytes] = []
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError:
                # What came before the break is given first; the same error comes again at the next look.
                if not pieces:
                    raise
                event = h11.NEED_DATA
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage):
                return Piece(b"".join(pieces), event is not h11.NEED_DATA)
            else:
                raise h11.RemoteProtocolError("the other end hung up in the middle of a body")

    async def receive(self) -> Piece:
        """The next piece of the body, with all that came with it; waits only when nothing is there; raises likewise."""
        while not (piece := self.take()).data and not piece.is_last:
            await self.fill()
        return piece


class Connection(HttpEnd):
    """One connection to a server, one request after the other.

    Attributes:
        idle_since: trio's time at which the last answer ended.
    """

    def __init__(self, stream: trio.abc.Stream, raw: trio.SocketStream | None = None) -> None:
        """Take over a stream; `raw` is the socket below it, to see whether the server hung up."""
        super().__init__(stream, h11.CLIENT)
        self._raw = raw
        self.idle_since = trio.current_time()

    async def receive_head(self) -> h11.Response:
        """The head of the answer; what is only informational is passed over.

        Raises:
            BrokenResourceError: the server hung up.
            RemoteProtocolError: this is no HTTP.
        """
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError("the server hung up without an answer")
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise h11.RemoteProtocolError("the server did not answer the request")

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"", *, most: int) -> Answer:
        """One request with a whole answer.

        Args:
            method: of HTTP.
            target: path and query.
            headers: without framing.
            body: of the request.
            most: octets that the answer's body may have.

        Raises:
            ValueError: the answer is larger.
        """
        framing = [(b"content-length", str(len(body)).encode())] if body or method not in ("GET", "HEAD") else []
        request = h11.Request(method=method, target=target, headers=[*headers, *framing])
        await self.send_body(request, piece=Piece(body, is_last=True))
        head = await self.receive_head()
        fields = [(bytes(name), bytes(value)) for name, value in head.headers]
        return Answer(head.status_code, fields, await self.receive_rest(most))

    async def receive_rest(self, most: int) -> bytes:
        """The whole body.

        Raises:
            ValueError: it has more octets than `most`.
        """
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = await self.receive()
            size += len(piece.data)
            if size > most:
                raise ValueError(f"the answer has more than {most} octets")
            pieces.append(piece.data)
            if piece.is_last:
                return b"".join(pieces)

    async def lines(self) -> AsyncIterator[bytes]:
        """The body, line by line; for watches.

        Raises:
            RemoteProtocolError: a line is too long.
        """
        rest = b""
        is_last = False
        while not is_last:
            data, is_last = await self.receive()
            *whole, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_LIMIT:
                raise h11.RemoteProtocolError(f"a line has more than {_LINE_LIMIT} octets")
            for line in whole:
                if line:
                    yield line

    def begin_next(self) -> bool:
        """Make ready for another request; False when this connection must be closed."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
            return False
        self.http.start_next_cycle()
        self.idle_since = trio.current_time()
        return True

    def is_stale(self) -> bool:
        """Whether the server hung up, or said something unasked, while nothing was going on."""
        if self._raw is None:
            return False
        poll = select.poll()
        poll.register(self._raw.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def aclose(self) -> None:
        """Hang up, without waiting for anybody."""
        await trio.aclose_forcefully(self._stream)


async def open_connection(origin: Origin, proxy: Proxy | None = None) -> Connection:
    """Dial, and shake hands where there is TLS.

    Raises:
        OSError: with an errno, gaierror for a name without address, SSLError for what TLS refused.
    """
    return Connection(*await open_stream(origin, proxy))

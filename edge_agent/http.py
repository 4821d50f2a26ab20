"""One HTTP/1.1 connection as a client: h11 over a trio stream, strict, and without redirects.

`kube` and `hubapi` stand on it for whole answers, `apiproxy` for streams. What a server sends is never trusted: heads
are bounded by h11, bodies by whoever reads them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import h11
import trio

__all__ = ["Answer", "Connection", "Headers", "Origin", "cause_of", "open_connection"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
_READ: Final = 65536
_HEAD_LIMIT: Final = 65536


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


class Origin(NamedTuple):
    """Whom to dial."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """For the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Connection:
    """One connection to a server, one request after the other.

    Attributes:
        idle_since: trio's time at which the last answer ended.
    """

    def __init__(self, stream: trio.abc.Stream, raw: trio.SocketStream | None = None) -> None:
        """Take over a stream; `raw` is the socket below it, to see whether the server hung up."""
        self._stream = stream
        self._raw = raw
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        self.idle_since = trio.current_time()

    async def send_head(self, method: str | bytes, target: str | bytes, headers: Headers) -> None:
        """Begin a request."""
        await self._send(h11.Request(method=method, target=target, headers=list(headers)))

    async def send_data(self, data: bytes) -> None:
        """Go on with its body."""
        await self._send(h11.Data(data=data))

    async def end_request(self) -> None:
        """End it."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        octets = self._http.send(event)
        if octets:
            await self._stream.send_all(octets)

    async def receive_head(self) -> h11.Response:
        """The head of the answer; what is only informational is passed over.

        Raises:
            BrokenResourceError: the server hung up.
            RemoteProtocolError: this is no HTTP.
        """
        while True:
            event = await self._receive()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            raise h11.RemoteProtocolError("the server did not answer the request")

    async def receive_data(self) -> bytes | None:
        """The next piece of the body, None at its end."""
        event = await self._receive()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise h11.RemoteProtocolError("the server hung up in the middle of an answer")

    async def _receive(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(bytes(await self._stream.receive_some(_READ)))

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
        await self.send_head(method, target, [*headers, *framing])
        if body:
            await self.send_data(body)
        await self.end_request()
        head = await self.receive_head()
        pieces: list[bytes] = []
        size = 0
        while (piece := await self.receive_data()) is not None:
            size += len(piece)
            if size > most:
                raise ValueError(f"the answer has more than {most} octets")
            pieces.append(piece)
        return Answer(head.status_code, [(bytes(n), bytes(v)) for n, v in head.headers], b"".join(pieces))

    async def lines(self) -> AsyncIterator[bytes]:
        """The body, line by line; for watches."""
        rest = b""
        while (piece := await self.receive_data()) is not None:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line:
                    yield line

    def begin_next(self) -> bool:
        """Make ready for another request; False when this connection must be closed."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
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


async def open_connection(origin: Origin) -> Connection:
    """Dial, and shake hands where there is TLS.

    Raises:
        OSError: with an errno, gaierror for a name without address, SSLError for what TLS refused.
    """
    raw = await trio.open_tcp_stream(origin.host, origin.port)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if origin.tls is None:
        return Connection(raw, raw)
    stream = trio.SSLStream(raw, origin.tls, server_hostname=origin.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException as problem:
        with trio.CancelScope(shield=True, deadline=0):
            await trio.aclose_forcefully(stream)
        if isinstance(problem, trio.BrokenResourceError):
            raise cause_of(problem) from None  # it is in there already: another link would make a ring
        raise
    return Connection(stream, raw)


def cause_of(problem: BaseException) -> OSError:
    """The OSError behind what trio and h11 say, with an errno where there is one.

    An SSLError stays what it is, and so does a gaierror: who asks wants to tell them apart.
    """
    seen: BaseException | None = problem
    best: OSError | None = None
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        if isinstance(seen, OSError) and (best is None or best.errno is None):
            best = seen
        seen = seen.__cause__
    if best is None:
        if isinstance(problem, trio.TooSlowError):
            return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return OSError(errno.ECONNRESET, str(problem) or os.strerror(errno.ECONNRESET))
    return best

"""HTTP/1.1 to an edge through the wire: strict framing by h11, one request at a time on a connection, a few kept warm.

A connection that served a whole request and its whole answer may serve another one, which saves a round trip;
anything else is reset. A kept connection that broke before a single octet of an answer came is replaced once, if the
request may be repeated; one whose edge was silent is not. Everything that comes is hostile, and heads are bounded.
Only dialling and sending have a time limit: an answer may begin with the first line of a log that comes tomorrow.
That the edge is still there all the while is known to the connection itself (`Wire.dial`).
"""

from __future__ import annotations

import contextlib
import errno
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import h11
import trio

from hub_server import supervise
from hub_server.domain.headers import Fields, content_length_untrusted
from hub_server.nursery import unwrapped
from hub_server.wire import Wire

__all__ = ["Answer", "EdgeFault", "Upstream"]

_READ: Final = 256 * 1024
_HEAD: Final = 64 * 1024
_SENT_WITHIN: Final = 60.0
_KEPT_EACH: Final = 8
_KEPT_FOR: Final = 60.0
_INTERIM: Final = 4
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class EdgeFault(Exception):
    """The edge went away, or broke the rules of HTTP; the text says what, to people."""


class _Stale(Exception):
    """A kept connection was dead."""


class _Connection:
    def __init__(self, wire: Wire, stream: Any) -> None:
        self.stream = stream
        self._wire = wire
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        self.is_kept = False
        self.kept_at = 0.0
        self.is_silent = False  # it did not break: nothing of the edge came for too long

    async def send(self, event: h11.Event) -> None:
        await self.send_octets(self.http.send(event) or b"")

    async def send_octets(self, data: bytes) -> None:
        try:
            with trio.fail_after(_SENT_WITHIN):
                if data:
                    await self.stream.send_all(data)
        except trio.TooSlowError:
            raise EdgeFault("the edge did not take the request in time") from None
        except _GONE as problem:
            raise self._fault(problem) from None

    def _fault(self, problem: Exception) -> EdgeFault:
        cause = problem.__cause__
        self.is_silent = isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT
        return EdgeFault(self._wire.why_lost(self.stream))

    @property
    def is_whole(self) -> bool:
        """Request and answer are over, and nothing was smuggled in behind it."""
        http = self.http
        return http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]

    def event(self) -> h11.Event | None:
        """What is there already; None when more must come first."""
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as problem:
            raise EdgeFault(f"the edge broke the rules of HTTP: {problem}") from None
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Event):
            raise EdgeFault("the edge spoke out of turn")
        return event

    async def more(self) -> None:
        try:
            self.http.receive_data(await self.stream.receive_some(_READ))
        except _GONE as problem:
            raise self._fault(problem) from None

    async def next_event(self) -> h11.Event:
        while (event := self.event()) is None:
            await self.more()
        return event

    async def head(self) -> h11.Response:
        for _ in range(_INTERIM):
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise EdgeFault("the edge closed the connection")
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                break
        raise EdgeFault("the edge gave no proper answer")


class Answer:
    """The head of an answer, and its body while the context lasts.

    Attributes:
        status: 200 to 599.
        fields: as the edge sent them, names in lower case.
        length: of the body, None where the edge did not say.
    """

    def __init__(self, connection: _Connection, response: h11.Response) -> None:
        """Use `Upstream.request`."""
        self.status = response.status_code
        self.fields: Fields = list(response.headers)
        self.length = content_length_untrusted(self.fields)
        self._connection = connection
        self._is_over = False

    async def piece(self) -> bytes:
        """What came of the body, empty at its end; nothing is held back, and nothing read ahead of who takes it.

        Raises:
            EdgeFault: it ended too early.
        """
        connection = self._connection
        there: list[bytes] = []
        while not self._is_over:
            event = connection.event()
            if isinstance(event, h11.Data):
                there.append(event.data)
            elif there and event is None:
                # Many small chunks that came together leave together.
                return b"".join(there)
            elif event is None:
                await connection.more()
            elif isinstance(event, h11.EndOfMessage):
                self._is_over = True
            else:
                raise EdgeFault("the answer ended too early")
        return b"".join(there)


class Upstream:
    """Requests to the edges of one wire."""

    def __init__(self, wire: Wire) -> None:
        """Start with no connection."""
        self._wire = wire
        self._kept: dict[str, list[_Connection]] = defaultdict(list)

    @asynccontextmanager
    async def request(
        self,
        cluster_id: str,
        method: str,
        target: str,
        fields: Fields,
        body: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]] | None = None,
        *,
        length: int | None = None,
    ) -> AsyncIterator[Answer]:
        """Send a request; its answer is given as soon as its head is there.

        Args:
            cluster_id: whose edge.
            method: HTTP.
            target: path and query.
            fields: beside the framing and Host, which are made here.
            body: called with a function that takes pieces; runs beside the answer. None for no body.
            length: of the body; None for chunks.

        Raises:
            OSError: the edge cannot be reached.
            EdgeFault: it went away or broke the rules before the head was whole.
        """
        framing: list[tuple[bytes, bytes]] = [(b"host", b"edge")]
        if body is not None:
            framing.append(
                (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
            )
        request = h11.Request(method=method, target=target, headers=[*framing, *fields])
        connection = await self._connection(cluster_id)
        is_whole = False
        try:
            if body is None:
                try:
                    response = await self._ask(connection, request)
                except _Stale:
                    connection = await self._connection(cluster_id, is_new=True)
                    response = await self._ask(connection, request)
                yield Answer(connection, response)
            else:
                with unwrapped():
                    async with trio.open_nursery() as nursery:
                        await connection.send(request)
                        supervise.start_part(nursery, _send_body, connection, body)
                        response = await connection.head()
                        yield Answer(connection, response)
                        nursery.cancel_scope.cancel()
            is_whole = connection.is_whole
        finally:
            if is_whole and len(self._kept[cluster_id]) < _KEPT_EACH:
                connection.http.start_next_cycle()
                connection.is_kept, connection.kept_at = True, trio.current_time()
                self._kept[cluster_id].append(connection)
            else:
                connection.stream.abort()

    def close(self) -> None:
        """Let go of the connections that are kept."""
        for kept in self._kept.values():
            for connection in kept:
                connection.stream.abort()
        self._kept.clear()

    async def _connection(self, cluster_id: str, *, is_new: bool = False) -> _Connection:
        kept = self._kept[cluster_id]
        while kept:
            connection = kept.pop()
            is_fresh = trio.current_time() - connection.kept_at < _KEPT_FOR
            if not is_new and is_fresh and self._wire.is_at_rest(connection.stream):
                return connection
            connection.stream.abort()
        return _Connection(self._wire, await self._wire.dial(cluster_id))

    async def _ask(self, connection: _Connection, request: h11.Request) -> h11.Response:
        """Send a request without a body and wait for the head of the answer."""
        http = connection.http
        data = (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
        try:
            await connection.send_octets(data)
            return await connection.head()
        except EdgeFault as fault:
            problem = fault
        is_repeatable = connection.is_kept and not http.trailing_data[0] and request.method in (b"GET", b"HEAD")
        # Who was silent for so long would let another dial wait as well.
        if is_repeatable and not connection.is_silent:
            connection.stream.abort()
            raise _Stale
        raise problem


async def _send_body(
    connection: _Connection, body: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
) -> None:
    is_wanted = True

    async def send(piece: bytes) -> None:
        # The edge may have answered, and hung up, without reading everything: the answer, or its absence, says why.
        # The rest of the body is taken all the same, so that who sends it comes to read that answer.
        nonlocal is_wanted
        if is_wanted:
            try:
                await connection.send(h11.Data(data=piece))
            except EdgeFault:
                is_wanted = False

    await body(send)
    if is_wanted:
        with contextlib.suppress(EdgeFault):
            await connection.send(h11.EndOfMessage())

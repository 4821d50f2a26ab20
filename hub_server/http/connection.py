"""One HTTP/1.1 connection: requests in turn, each given to the application; what it must refuse itself, it refuses.

    octets -> h11 -> head (request.py) -> Exchange or WebSocket -> application -> settle -> the next head, or the end

A fresh h11 machine reads each request, so that nothing of one can be left over in the next. One task reads and writes a
connection, or the application's own in its place; nobody closes it while they do.
"""

from __future__ import annotations

import json
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import h11
import structlog
import trio
from starlette.requests import ClientDisconnect

from hub_server import log, supervise
from hub_server.domain.errors import HubError
from hub_server.http.chatter import Chatter
from hub_server.http.exchange import Exchange, HungUp, Message, date_now, reason_of, take
from hub_server.http.limits import HEAD, READ, Limits
from hub_server.http.request import Refused, read_head_untrusted, scope_of, wants_websocket_untrusted, without_quotes
from hub_server.http.room import Place
from hub_server.http.transport import why_tls_failed
from hub_server.http.websocket import WebSocket

__all__ = ["Application", "Connection", "Explain", "Service"]

_log = structlog.get_logger("hub.http")

Scope: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
# The scope where there is one, status, detail, request id -> fields and body of a refusal.
Explain: TypeAlias = Callable[[Scope | None, int, str, str], tuple[list[tuple[bytes, bytes]], bytes]]
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

_GONE: Final = (HungUp, ClientDisconnect)
_BROKEN: Final = "the hub made a mistake; its log has more under this id"


def problem_document(
    scope: Scope | None, status: int, detail: str, request_id: str
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A refusal as RFC 9457 has it."""
    document = {"type": "about:blank", "title": reason_of(status).decode(), "status": status, "detail": detail}
    fields = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    return fields, json.dumps({**document, "request_id": request_id}).encode()


@dataclass(slots=True)
class Service:
    """What all connections of a server share.

    Attributes:
        application: what answers.
        limits: of each connection.
        explain: how a refusal of the server's own looks.
        wall_clock: Unix seconds, for `date`.
        chatter: what strangers do.
        is_draining: no request follows the present ones.
        resting: the scopes of connections between two requests.
    """

    application: Application
    limits: Limits = field(default_factory=Limits)
    explain: Explain = problem_document
    wall_clock: Callable[[], float] = time.time
    chatter: Chatter = field(default_factory=Chatter)
    is_draining: bool = False
    resting: set[trio.CancelScope] = field(default_factory=set)

    def drain(self) -> None:
        """From now on no request follows the present ones."""
        self.is_draining = True
        for scope in self.resting:
            scope.cancel()


class Connection:
    """One connection.

    Attributes:
        http: h11's machine for the present request.
        place: that the connection has; told whose turn it is.
        has_hung_up: whether the peer is known to be gone, without reading.
        is_broken: the answer broke off, or nobody takes it: the connection must not end as if all were well.
        lingers: the peer may still be sending when the connection ends.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        service: Service,
        place: Place,
        *,
        client: tuple[str, int] = ("", 0),
        server: tuple[str, int] = ("", 0),
        is_tls: bool = False,
        has_hung_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take a stream whose TLS handshake is over; who made it closes it."""
        self.has_hung_up = has_hung_up
        self._stream = stream
        self.service = service
        self.place = place
        self.client, self.server, self.is_tls = client, server, is_tls
        self.peer = f"{client[0]}:{client[1]}"
        self.http = h11.Connection(h11.SERVER)
        self.is_broken = self.lingers = False
        self._ahead = b""
        self._is_at_end = False
        self._method = b""
        self._is_new = True
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Serve until one of the two has enough."""
        try:
            while await self._one():
                pass
        except HungUp as problem:
            self.note("a client hung up before its answer was complete", str(problem))

    def note(self, kind: str, detail: str = "") -> None:
        """Tell what the peer did, briefly."""
        self.service.chatter.note(kind, self.peer, detail)

    # --- octets ------------------------------------------------------------------------------------------------------

    async def read(self, seconds: float) -> bytes:
        """What came; empty at its end.

        Raises:
            trio.TooSlowError: nothing came in so many seconds.
        """
        if self._is_at_end:
            await trio.lowlevel.checkpoint()
            return b""
        data = b""
        try:
            with trio.fail_after(seconds):
                data = bytes(await self._stream.receive_some(READ))
        except trio.BrokenResourceError as problem:
            if isinstance(problem.__cause__, ssl.SSLError) and (why := why_tls_failed(problem))[1]:
                self.note(*why)
        except trio.ClosedResourceError:
            pass  # the place was lost to another connection
        self._is_at_end = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send everything.

        Raises:
            HungUp: it cannot be sent.
        """
        await take(self._writing)
        try:
            if self.is_broken:
                raise HungUp("the client is gone")
            self.place.wait()
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as problem:
            self.is_broken = True
            raise HungUp(str(problem) or "the connection is closed") from problem
        except BaseException:
            self.is_broken = True  # cut in the middle
            raise
        finally:
            self.place.work()
            self._writing.release()

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _one(self) -> bool:
        """Serve one request; whether another may follow."""
        request_id = secrets.token_hex(8)
        try:
            request = await self._next_request()
            if request is None:
                return False
            self._method = request.method
            self.place.work()
            head = read_head_untrusted(request)
            is_websocket = wants_websocket_untrusted(head)
        except Refused as refused:
            self.note("a request was refused before it was understood", f"{refused.status}: {refused.detail}")
            await self.refuse(refused, None, request_id)
            return False
        if self.has_hung_up():
            self.note("a client hung up before its answer was begun")
            return False
        scope = scope_of(
            head, request_id, is_websocket=is_websocket, is_tls=self.is_tls, client=self.client, server=self.server
        )
        exchange = Exchange(self, head, request_id)
        if is_websocket:
            return await self._serve_websocket(scope, exchange)
        failure = await self._run(scope, exchange.receive, exchange.send, exchange)
        return await self._settle(scope, exchange, failure)

    async def _next_request(self) -> h11.Request | None:
        """The next head; None when there is none.

        Raises:
            Refused: it is none, or comes too slowly.
        """
        if self.service.is_draining and not self._ahead:
            return None
        self.place.wait()
        limits = self.service.limits
        http = self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self._method = b""
        has_begun, deadline = False, trio.current_time() + (limits.head if self._is_new else limits.idle)
        data, self._ahead, self._is_new = self._ahead, b"", False
        while True:
            if data and not has_begun:
                deadline = min(deadline, trio.current_time() + limits.head)
                # RFC 9112 section 2.2: empty lines before a request are ignored.
                data = data.lstrip(b"\r\n")
            if data:
                has_begun = True
                http.receive_data(data)
                if (request := self._parsed(http)) is not None:
                    return request
            try:
                data = await (self.read if has_begun else self._rest)(max(0, deadline - trio.current_time()))
            except trio.TooSlowError:
                if has_begun:
                    raise Refused(408, "the head of the request came too slowly") from None
                return None
            if not data:
                if has_begun:
                    self.note("a client hung up in the head of a request")
                return None

    async def _rest(self, seconds: float) -> bytes:
        """Read as long as nobody ends the rest between two requests."""
        with trio.CancelScope() as scope:
            self.service.resting.add(scope)
            try:
                return await self.read(seconds)
            finally:
                self.service.resting.discard(scope)
        return b""

    @staticmethod
    def _parsed(http: h11.Connection) -> h11.Request | None:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as problem:
            status = problem.error_status_hint
            if status == 431 and b"\n" not in http.trailing_data[0]:
                status = 414
            raise Refused(status, without_quotes(problem)) from None
        return event if isinstance(event, h11.Request) else None

    async def _run(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        exchange: Exchange,
    ) -> Exception | None:
        """Run the application; its failure is its own, and is returned."""
        failure: list[Exception] = []

        async def answer() -> None:
            try:
                await self.service.application(scope, receive, send)
            except Exception as problem:
                causes = [cause for cause in supervise.leaves(problem) if isinstance(cause, Exception)]
                if all(isinstance(cause, _GONE) for cause in causes) and (exchange.is_gone or self.is_broken):
                    return
                failure.extend(causes)
                if not all(isinstance(cause, HubError) for cause in causes):
                    raise

        request_id = scope["state"]["request_id"]
        with exchange.work, log.about_request(request_id):
            if not await supervise.run_once("request", answer, victim=f"{request_id} of {self.peer}"):
                path = scope["raw_path"].decode("ascii")[:200]
                _log.error("a request failed", request=request_id, peer=self.peer, method=scope["method"], path=path)
        return failure[0] if failure else None

    async def _settle(self, scope: Scope, exchange: Exchange, failure: Exception | None) -> bool:
        """What follows when the application is done; whether another request may come."""
        request_id = scope["state"]["request_id"]
        if exchange.is_answered:
            self._ahead = self.http.trailing_data[0]
            if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                return True
            self.lingers = self.http.their_state is not h11.DONE or bool(self._ahead)
            return False
        is_gone = self.is_broken or (exchange.is_gone and exchange.fault is None)
        if exchange.has_begun or is_gone:
            self.is_broken = True
            if failure is None:
                kind = "a client hung up before its answer was complete" if is_gone else "an answer broke off"
                self.note(kind, f"request {request_id}")
            return False
        if isinstance(failure, HubError) and exchange.fault is None:
            fields: Fields = ()
            if (after := getattr(failure, "retry_after", None)) is not None:
                fields = ((b"retry-after", b"%d" % max(1, round(after))),)
            refused = Refused(failure.status, failure.detail, *fields)
        else:
            refused = exchange.fault or Refused(500, _BROKEN)
        await self.refuse(refused, scope, request_id)
        return False

    async def refuse(self, refused: Refused, scope: Scope | None, request_id: str) -> None:
        """Answer in the application's place, and end the connection."""
        http = self.http
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.is_broken = True
            return
        fields, body = self.service.explain(scope, refused.status, refused.detail, request_id)
        fields = [*fields, (b"content-length", b"%d" % len(body))] if refused.status != 204 else []
        fields += [(b"date", date_now(self.service.wall_clock())), (b"x-request-id", request_id.encode())]
        fields += [*refused.fields, (b"connection", b"close")]
        response = h11.Response(status_code=refused.status, headers=fields, reason=reason_of(refused.status))
        octets = http.send(response)
        if refused.status != 204 and self._method != b"HEAD":
            octets += http.send(h11.Data(data=body))
        self.lingers = True
        await self.write(octets)

    async def _serve_websocket(self, scope: Scope, exchange: Exchange) -> bool:
        socket = WebSocket(self, exchange, scope["headers"], scope["subprotocols"])
        failure = await self._run(scope, socket.receive, socket.send, exchange)
        if socket.is_open:
            await socket.finish(has_failed=failure is not None)
            return False
        if socket.is_denied:
            denial = Refused(403, "there is no WebSocket at this address")
            await self.refuse(denial, scope, scope["state"]["request_id"])
            return False
        return await self._settle(scope, exchange, failure)

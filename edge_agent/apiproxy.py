"""The hub's requests, from the tunnel to the API server: HTTP/1.1, fresh headers, and what is there is sent at once.

    hub -> tunnel:7443 -> h11 -> headers (allow-list) + our account's token -> kube -> API server
    API server -> h11 -> headers (allow-list) -> tunnel -> hub             each piece is sent before the next is read

Only the hub's addresses are answered, only the one API server is dialled, and our own key is not shown (`headers`). A
hub that hangs up ends the request at the API server at once; an API server or a hub that is gone without a word ends it
within 15 seconds (`dial`, the tunnel's keepalive, and `cut` when the heartbeats stay without answer).
Upgrades (exec, attach, port-forward) are refused in `headers`; their relay will stand beside `_relay`.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from edge_agent import supervise
from edge_agent.headers import (
    Refused,
    answer_fields,
    check_target,
    framing_of,
    is_proxied,
    request_fields,
    why_private,
)
from edge_agent.http import Connection, HttpEnd, Piece
from edge_agent.kube import EDGE_TOKEN_REFUSED, TOKEN_REFUSED, Kube, Unreachable
from edge_agent.nursery import open_plain_nursery

if TYPE_CHECKING:
    from collections.abc import Collection

    from edge_agent.facts import Facts
    from edge_agent.settings import Settings

__all__ = ["ApiProxy"]

_log = logging.getLogger("edge.apiproxy")

# A connection that the hub keeps for its next request.
_IDLE: Final = 120.0
# More than a hub lets through by itself: which of its users has too many is for the hub to say.
_MOST_STREAMS: Final = 2048
# A body up to this size is read before the API server is asked, so that the request can be repeated.
_WHOLE: Final = 256 * 1024
# What is read and thrown away behind an answer that came before the request had ended, and for how long.
_DRAINED: Final = 16 * 2**20
_DRAIN_TIMEOUT: Final = 10.0
_HANG_UP_ERRORS: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class ApiProxy:
    """Answers the hub, and nobody else."""

    def __init__(self, settings: Settings, kube: Kube, facts: Facts, hub_addresses: Collection[str]) -> None:
        """Serve requests from these addresses."""
        self._settings = settings
        self._kube = kube
        self._facts = facts
        self._hub_addresses = frozenset(hub_addresses)
        self._open: set[trio.CancelScope] = set()

    async def serve(self, listeners: list[Any]) -> None:
        """Answer for ever."""
        await trio.serve_listeners(self.handle, listeners)

    def cut(self) -> None:
        """The hub is gone: end what it asked for. It asks again when it is back."""
        for scope in self._open:
            scope.cancel()

    async def handle(self, stream: Any) -> None:
        """One connection of the hub; whatever becomes of it concerns no other."""
        await supervise.run_once("request of the hub", self._handle, stream)

    async def _handle(self, stream: Any) -> None:
        remote = _remote_of(stream)
        if remote not in self._hub_addresses:
            _log.warning("refused a connection from %s, who is not the hub", remote)
            await trio.aclose_forcefully(stream)
            return
        conversation = _Conversation(self._settings, self._kube, self._facts, stream)
        is_whole = False
        try:
            with trio.CancelScope() as scope:
                self._open.add(scope)
                if len(self._open) > _MOST_STREAMS:
                    await conversation.refuse_unread(429, f"more than {_MOST_STREAMS} streams at once")
                else:
                    await conversation.run()
            is_whole = not scope.cancelled_caught
        except _HANG_UP_ERRORS:
            is_whole = not conversation.is_answering
        finally:
            self._open.discard(scope)
            if not is_whole:
                _reset(stream)
            await trio.aclose_forcefully(stream)


class _Conversation:
    """Requests of one connection, one after the other."""

    def __init__(self, settings: Settings, kube: Kube, facts: Facts, stream: trio.abc.HalfCloseableStream) -> None:
        self._settings = settings
        self._kube = kube
        self._facts = facts
        self._stream = stream
        self._hub = HttpEnd(stream, h11.SERVER)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is begun and not ended: cut short now, it must not be taken for the whole."""
        return self._hub.http.our_state is h11.SEND_BODY

    async def run(self) -> None:
        """Until the hub hangs up, or something is out of order."""
        while True:
            request = None
            with trio.move_on_after(_IDLE):
                try:
                    request = await self._hub.next_event()
                except h11.RemoteProtocolError as problem:
                    await self._refuse(400, "BadRequest", f"not a proper request: {problem}")
            if not isinstance(request, h11.Request):
                await self._drain()
                return
            self._facts.requests += 1
            self._facts.streams += 1
            try:
                await self._answer(request)
            finally:
                self._facts.streams -= 1
            if self._hub.http.our_state is not h11.DONE or self._hub.http.their_state is not h11.DONE:
                await self._drain()
                return
            self._hub.http.start_next_cycle()

    async def refuse_unread(self, status: int, message: str) -> None:
        """Answer the first request without looking at it."""
        with trio.move_on_after(5):
            await self._hub.next_event()
            await self._refuse(status, "TooManyRequests", message)

    async def _answer(self, request: h11.Request) -> None:
        is_head = _is_head(request)
        fields = [(bytes(name), bytes(value)) for name, value in request.headers]
        try:
            check_target(bytes(request.target))
            settings = self._settings
            if reason := why_private(request.method, request.target, settings.namespace, settings.config_map):
                raise Refused(reason)
            head = request_fields(fields)
        except Refused as problem:
            await self._refuse(403, "Forbidden", str(problem), is_head=is_head)
            return
        if self._facts.is_stopping:
            await self._refuse(503, "ServiceUnavailable", "this edge is stopping", is_head=is_head)
            return
        try:
            body = await self._whole_body()
        except h11.RemoteProtocolError as problem:
            await self._refuse(400, "BadRequest", f"not a proper request: {problem}", is_head=is_head)
            return
        try:
            for is_last_try in (False, True):
                async with self._kube.connection() as upstream:
                    ours = [(b"host", self._kube.authority), *self._kube.authorization()]
                    sent = h11.Request(
                        method=request.method, target=request.target, headers=[*ours, *head, *framing_of(fields)]
                    )
                    if await self._relay(request, sent, body, upstream, is_last_try=is_last_try):
                        return
        except Unreachable as problem:
            await self._unreachable(problem, is_head=is_head)
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError) as problem:
            await self._unreachable(Unreachable(problem), is_head=is_head)

    async def _whole_body(self) -> Piece:
        """The body, if it is small; else how it begins."""
        pieces: list[bytes] = []
        size = 0
        while True:
            data, is_last = await self._hub.receive()
            pieces.append(data)
            size += len(data)
            if is_last or size > _WHOLE:
                return Piece(b"".join(pieces), is_last)

    async def _relay(
        self, request: h11.Request, sent: h11.Request, body: Piece, upstream: Connection, *, is_last_try: bool
    ) -> bool:
        """Body up, answer down, at the same time; whoever of both ends hangs up ends the other.

        Returns:
            Whether the hub has its answer; False when our token was refused and another try may help.
        """
        hung_up = False
        is_head = _is_head(request)

        async def send_up() -> None:
            nonlocal hung_up
            try:
                if not await self._send_up(upstream, sent, body):
                    return
                # From here on there is nothing to read but the end of the connection.
                if await self._hub.fill():
                    return
            except _HANG_UP_ERRORS:
                pass
            except h11.RemoteProtocolError as problem:
                _log.info("the hub broke off a request: %s", problem)
            hung_up = True
            nursery.cancel_scope.cancel()

        is_answered = True
        async with open_plain_nursery() as nursery:
            nursery.start_soon(send_up)
            answer = await upstream.receive_head()
            if answer.status_code == 401 and not is_proxied(request.target):
                self._kube.forget_token()
                is_answered = is_last_try or not body.is_last
                if is_answered:
                    await self._refuse(502, "BadGateway", TOKEN_REFUSED, cause=EDGE_TOKEN_REFUSED, is_head=is_head)
            elif 300 <= answer.status_code < 400 and answer.status_code != 304:
                text = f"the API server answered with a redirect ({answer.status_code}), and none is ever followed"
                await self._refuse(502, "BadGateway", text, cause="ApiRedirect", is_head=is_head)
            else:
                await self._send_down(upstream, _head_of(request, answer))
            nursery.cancel_scope.cancel()
        if hung_up:
            raise trio.BrokenResourceError("the hub hung up")
        return is_answered

    async def _send_up(self, upstream: Connection, sent: h11.Request, piece: Piece) -> bool:
        """Send the request; False when the API server takes no more of it: it may have answered without reading all."""
        events: tuple[h11.Event, ...] = (sent,)
        while True:
            try:
                await upstream.send_body(*events, piece=piece)
            except _HANG_UP_ERRORS:
                return False
            if piece.is_last:
                return True
            events = ()
            piece = await self._hub.receive()

    async def _send_down(self, upstream: Connection, head: h11.Response) -> None:
        piece = upstream.take()
        await self._hub.send_body(head, piece=piece)
        while not piece.is_last:
            piece = await upstream.receive()
            await self._hub.send_body(piece=piece)

    # --- answers of our own ------------------------------------------------------------------------------------------

    async def _unreachable(self, problem: Unreachable, *, is_head: bool) -> None:
        if self._hub.http.our_state is not h11.SEND_RESPONSE:
            raise trio.BrokenResourceError("the API server broke off an answer") from problem
        text = f"tunnel up, API server unreachable from the edge pod: {problem}"
        await self._refuse(502, "BadGateway", text, cause="ApiUnreachable", is_head=is_head)

    async def _refuse(
        self, status: int, reason: str, message: str, *, cause: str = "Refused", is_head: bool = False
    ) -> None:
        if self._hub.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        document = {
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "DaaluEdge",
            "details": {"causes": [{"reason": cause, "message": f"{reason}: {message}"}]},
            "code": status,
        }
        body = json.dumps(document).encode()
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            # The request may not have been read to its end.
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=status, headers=fields)
        await self._hub.send_body(head, piece=Piece(b"" if is_head else body, is_last=True))

    async def _drain(self) -> None:
        """Read what the hub still sends behind an answer that came early, so that no reset overtakes the answer."""
        http = self._hub.http
        if http.our_state not in (h11.DONE, h11.MUST_CLOSE) or http.their_state not in (h11.SEND_BODY, h11.ERROR):
            return
        left = _DRAINED
        with trio.move_on_after(_DRAIN_TIMEOUT):
            await self._stream.send_eof()
            while left > 0 and (data := await self._stream.receive_some()):
                left -= len(data)


def _head_of(request: h11.Request, answer: h11.Response) -> h11.Response:
    fields = [(bytes(name), bytes(value)) for name, value in answer.headers]
    framing = framing_of(fields)
    if answer.status_code == 204:
        framing = []  # such an answer has no body, and must not say so (RFC 9110 section 8.6)
    elif not framing and not _is_head(request) and answer.status_code != 304:
        # The API server ends this body by hanging up; towards the hub it is delimited.
        framing = [(b"transfer-encoding", b"chunked")]
    return h11.Response(
        status_code=answer.status_code, headers=[*answer_fields(fields), *framing], reason=answer.reason
    )


def _is_head(request: h11.Request) -> bool:
    return request.method == b"HEAD"


def _reset(stream: Any) -> None:
    """Let the close of a stream be a reset: an answer was cut short, and must not be taken for the whole."""
    if hasattr(stream, "abort"):
        stream.abort()
    elif isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _remote_of(stream: Any) -> str:
    address = getattr(stream, "remote_address", None)
    if address is None:
        try:
            address = stream.socket.getpeername()
        except OSError:
            return "somebody gone"
    return str(address[0])

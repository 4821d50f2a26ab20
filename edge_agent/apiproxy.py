"""The hub's requests, from the tunnel to the API server: HTTP/1.1, fresh headers, streams without buffers of their own.

    hub -> tunnel:7443 -> h11 -> headers (allow-list) + our account's token -> kube -> API server
    API server -> h11 -> headers (allow-list) -> tunnel -> hub             each piece is sent before the next is read

Only the hub's addresses are answered, only the one API server is dialled, and our own key is not shown (`headers`). A
hub that hangs up ends the request at the API server at once.
Upgrades (exec, attach, port-forward) are refused in `headers`; their relay will stand beside `_relay`.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from edge_agent.headers import Refused, answer_fields, check_target, framing_of, is_private, request_fields
from edge_agent.http import Connection
from edge_agent.kube import Kube, Unreachable
from edge_agent.nursery import open_plain_nursery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    from edge_agent.facts import Facts
    from edge_agent.settings import Settings

__all__ = ["ApiProxy"]

_log = logging.getLogger("edge.apiproxy")

_READ: Final = 65536
_HEAD_LIMIT: Final = 65536
# A connection that the hub keeps for its next request.
_IDLE: Final = 120.0
_MOST_STREAMS: Final = 512
_HANG_UP_ERRORS: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class ApiProxy:
    """Answers the hub, and nobody else."""

    def __init__(self, settings: Settings, kube: Kube, facts: Facts, hub_addresses: Collection[str]) -> None:
        """Serve requests from these addresses."""
        self._settings = settings
        self._kube = kube
        self._facts = facts
        self._hub_addresses = frozenset(hub_addresses)
        self._open = 0

    async def serve(self, listeners: list[Any]) -> None:
        """Answer for ever."""
        await trio.serve_listeners(self.handle, listeners)

    async def handle(self, stream: Any) -> None:
        """One connection of the hub."""
        remote = _remote_of(stream)
        if remote not in self._hub_addresses:
            _log.warning("refused a connection from %s, who is not the hub", remote)
            await trio.aclose_forcefully(stream)
            return
        conversation = _Conversation(self._settings, self._kube, self._facts, stream)
        self._open += 1
        try:
            if self._open > _MOST_STREAMS:
                await conversation.refuse_unread(429, f"more than {_MOST_STREAMS} streams at once")
                return
            await conversation.run()
        except _HANG_UP_ERRORS:
            pass
        except h11.LocalProtocolError:
            _log.exception("a request ended out of order")
            conversation.must_reset = True
        finally:
            self._open -= 1
            if conversation.must_reset and hasattr(stream, "abort"):
                stream.abort()
            await trio.aclose_forcefully(stream)


class _Conversation:
    """Requests of one connection, one after the other.

    Attributes:
        must_reset: an answer was cut short: the hub must not take it for the whole.
    """

    def __init__(self, settings: Settings, kube: Kube, facts: Facts, stream: trio.abc.HalfCloseableStream) -> None:
        self._settings = settings
        self._kube = kube
        self._facts = facts
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self.must_reset = False

    async def run(self) -> None:
        """Until the hub hangs up, or something is out of order."""
        while True:
            request = None
            with trio.move_on_after(_IDLE):
                try:
                    request = await self._next_event()
                except h11.RemoteProtocolError as problem:
                    await self._refuse(400, "BadRequest", f"not a proper request: {problem}")
                    return
            if not isinstance(request, h11.Request):
                return
            self._facts.requests += 1
            self._facts.streams += 1
            try:
                await self._answer(request)
            finally:
                self._facts.streams -= 1
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def refuse_unread(self, status: int, message: str) -> None:
        """Answer the first request without looking at it."""
        with trio.move_on_after(5):
            await self._next_event()
            await self._refuse(status, "TooManyRequests", message)

    async def _answer(self, request: h11.Request) -> None:
        fields = [(bytes(name), bytes(value)) for name, value in request.headers]
        try:
            check_target(bytes(request.target))
            if is_private(request.method, request.target, self._settings.namespace, self._settings.config_map):
                raise Refused("what the tunnel itself lives on is neither shown nor changed through it")
            head = request_fields(fields)
        except Refused as problem:
            await self._refuse(403, "Forbidden", str(problem), cause="Refused")
            return
        if self._facts.is_stopping:
            await self._refuse(503, "ServiceUnavailable", "this edge is stopping", cause="Refused")
            return
        try:
            async with self._kube.connection() as upstream:
                ours = [(b"host", self._kube.authority), *self._kube.authorization()]
                await upstream.send_head(request.method, request.target, [*ours, *head, *framing_of(fields)])
                await self._relay(request, upstream)
        except Unreachable as problem:
            await self._unreachable(problem)
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError) as problem:
            await self._unreachable(Unreachable(problem))

    async def _relay(self, request: h11.Request, upstream: Connection) -> None:
        """Body up, answer down, at the same time; whoever of both ends hangs up ends the other."""
        hung_up = False

        async def send_up() -> None:
            nonlocal hung_up
            try:
                while isinstance(event := await self._next_event(), h11.Data):
                    if not await _try(upstream.send_data(bytes(event.data))):
                        return  # the API server may have answered without reading everything
                if isinstance(event, h11.EndOfMessage):
                    await _try(upstream.end_request())
                    # From here on there is nothing to read but the end of the connection.
                    data = bytes(await self._stream.receive_some(_READ))
                    self._http.receive_data(data)
                    if data:
                        return
            except _HANG_UP_ERRORS:
                pass
            except h11.RemoteProtocolError as problem:
                _log.info("the hub broke off a request: %s", problem)
            hung_up = True
            nursery.cancel_scope.cancel()

        async with open_plain_nursery() as nursery:
            nursery.start_soon(send_up)
            answer = await upstream.receive_head()
            if answer.status_code == 401:
                self._kube.forget_token()
            if 300 <= answer.status_code < 400 and answer.status_code != 304:
                raise h11.RemoteProtocolError(f"the API server answered with a redirect ({answer.status_code})")
            await self._send(_head_of(request, answer))
            while (piece := await upstream.receive_data()) is not None:
                await self._send(h11.Data(data=piece))
            await self._send(h11.EndOfMessage())
            nursery.cancel_scope.cancel()
        if hung_up:
            raise trio.BrokenResourceError("the hub hung up")

    # --- answers of our own ------------------------------------------------------------------------------------------

    async def _unreachable(self, problem: Unreachable) -> None:
        if self._http.our_state is not h11.SEND_RESPONSE:
            self.must_reset = True
            raise trio.BrokenResourceError("the API server broke off an answer") from problem
        text = f"tunnel up, API server unreachable from the edge pod: {problem}"
        await self._refuse(502, "BadGateway", text, cause="ApiUnreachable")

    async def _refuse(self, status: int, reason: str, message: str, *, cause: str = "Refused") -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
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
        await self._send(h11.Response(status_code=status, headers=fields))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    # --- below -------------------------------------------------------------------------------------------------------

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(bytes(await self._stream.receive_some(_READ)))

    async def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        octets = self._http.send(event)
        if octets:
            await self._stream.send_all(octets)


def _head_of(request: h11.Request, answer: h11.Response) -> h11.Response:
    fields = [(bytes(name), bytes(value)) for name, value in answer.headers]
    framing = framing_of(fields)
    if not framing and request.method != b"HEAD" and answer.status_code not in (204, 304):
        # The API server ends this body by hanging up; towards the hub it is delimited.
        framing = [(b"transfer-encoding", b"chunked")]
    return h11.Response(
        status_code=answer.status_code, headers=[*answer_fields(fields), *framing], reason=answer.reason
    )


async def _try(sending: Awaitable[None]) -> bool:
    """Whether the API server took it; why not is seen by whoever reads its answer."""
    try:
        await sending
    except _HANG_UP_ERRORS:
        return False
    return True


def _remote_of(stream: Any) -> str:
    address = getattr(stream, "remote_address", None)
    if address is None:
        try:
            address = stream.socket.getpeername()
        except OSError:
            return "somebody gone"
    return str(address[0])

"""A WebSocket (RFC 6455, version 13) as ASGI: the opening by h11, the frames by wsproto.

As with requests nothing reads in the background: who waits in `receive` reads, answers pings, and asks a silent peer
whether it is still there. Compression is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import h11
import trio
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from hub_server.http.exchange import Exchange, HungUp, Message, reason_of

if TYPE_CHECKING:
    from hub_server.http.connection import Connection

__all__ = ["WebSocket"]

MESSAGE: Final = 2**20  # octets of one message; kubectl's are of 32 KiB
PING_EVERY: Final = 20.0  # seconds of silence after which the peer is asked
_UNANSWERED: Final = 3  # pings
_NORMAL, _WRONG, _ABNORMAL, _TOO_BIG, _FAILED = 1000, 1002, 1006, 1009, 1011  # RFC 6455 section 7.4.1


class WebSocket:
    """What the application has of one WebSocket.

    Attributes:
        is_open: it was accepted.
        is_denied: the application closed it before, without an answer of its own.
    """

    def __init__(
        self,
        connection: Connection,
        exchange: Exchange,
        fields: Sequence[tuple[bytes, bytes]],
        offered: Sequence[str],
    ) -> None:
        """Begin one; its opening was checked."""
        self._connection = connection
        self._exchange = exchange
        self._key = next(value.strip() for name, value in fields if name == b"sec-websocket-key")
        self._offered = offered
        self._frames: Frames | None = None
        self._was_told = False
        self._closed: Message | None = None
        self._parts: list[str | bytes] = []
        self._size = 0
        self._receiving = trio.Lock()
        self.is_denied = False

    @property
    def is_open(self) -> bool:
        """Whether it was accepted."""
        return self._frames is not None

    # --- receive -----------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """`websocket.connect` first; then messages, then `websocket.disconnect` for ever."""
        async with self._receiving:
            if not self._was_told:
                self._was_told = True
                return {"type": "websocket.connect"}
            if self._frames is None:
                await self._exchange.until_gone()
                return {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
            unanswered = 0
            while self._closed is None:
                if (message := await self._there(self._frames)) is not None:
                    return message
                if self._closed is None:
                    unanswered = await self._more(self._frames, unanswered)
            return dict(self._closed)

    async def _there(self, frames: Frames) -> Message | None:
        """A whole message of what was read."""
        try:
            for event in frames.events():
                if self._closed is not None:
                    break
                if isinstance(event, Ping):
                    await self._say(event.response())
                elif isinstance(event, CloseConnection):
                    # The peer's, or wsproto's own when a frame breaks the rules: either is said back.
                    if frames.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.OPEN):
                        await self._say(event.response())
                    self._end(event.code, event.reason or "")
                elif isinstance(event, TextMessage | BytesMessage) and (whole := await self._joined(event)) is not None:
                    return whole
        except RemoteProtocolError as problem:
            await self._say(CloseConnection(_WRONG))
            self._end(_WRONG, str(problem))
        return None

    async def _joined(self, event: TextMessage | BytesMessage) -> Message | None:
        self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
        self._size += len(event.data)
        if self._size > MESSAGE:
            await self._say(CloseConnection(_TOO_BIG, f"a message has at most {MESSAGE} octets"))
            self._end(_TOO_BIG, "a message was too big")
            return None
        if not event.message_finished:
            return None
        parts, self._parts, self._size = self._parts, [], 0
        if isinstance(event, TextMessage):
            return {"type": "websocket.receive", "text": "".join(str(part) for part in parts)}
        return {"type": "websocket.receive", "bytes": b"".join(part for part in parts if isinstance(part, bytes))}

    async def _more(self, frames: Frames, unanswered: int) -> int:
        """Read; returns how many pings in turn the peer has not answered."""
        try:
            data = await self._connection.read(PING_EVERY)
        except trio.TooSlowError:
            if unanswered >= _UNANSWERED:
                self._end(_ABNORMAL, "the peer is silent")
            else:
                await self._say(Ping())
            return unanswered + 1
        if data:
            frames.receive_data(data)
        else:
            self._end(_ABNORMAL, "")
        return 0

    def _end(self, code: int, reason: str) -> None:
        self._closed = self._closed or {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _say(self, event: Event) -> None:
        """Send a control frame, whole even when the application stops waiting."""
        assert self._frames is not None, "frames come after the opening"
        try:
            with trio.CancelScope(shield=True):
                await self._connection.write(self._frames.send(event))
        except (HungUp, LocalProtocolError):
            self._end(_ABNORMAL, "")

    # --- send --------------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Take what the application says.

        Raises:
            HungUp: nobody is there to take it.
        """
        kind = message["type"]
        if kind.startswith("websocket.http.response."):
            await self._exchange.send({**message, "type": kind.removeprefix("websocket.")})
        elif kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            if self._frames is None:
                self.is_denied = True
            elif self._frames.state is ConnectionState.OPEN:
                await self._say(CloseConnection(message.get("code", _NORMAL), message.get("reason") or None))
        elif kind == "websocket.send":
            await self._send(message)
        else:
            raise RuntimeError(f"{kind} is no message of a WebSocket")

    async def _accept(self, message: Message) -> None:
        fields = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        fields.append((b"sec-websocket-accept", generate_accept_token(self._key)))
        if (chosen := message.get("subprotocol")) is not None:
            if chosen not in self._offered:
                raise RuntimeError(f"subprotocol {chosen!r} was not offered")
            fields.append((b"sec-websocket-protocol", chosen.encode("ascii")))
        fields += [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        http = self._connection.http
        while isinstance(http.next_event(), h11.Event):
            pass  # the end of a request without a body
        octets = http.send(h11.InformationalResponse(status_code=101, headers=fields, reason=reason_of(101)))
        self._exchange.has_begun = True
        await self._connection.write(octets)
        self._frames = Frames(ConnectionType.SERVER, trailing_data=http.trailing_data[0])

    async def _send(self, message: Message) -> None:
        if self._frames is None or self._frames.state is not ConnectionState.OPEN:
            raise HungUp("the WebSocket is not open")
        text = message.get("text")
        event = TextMessage(text) if text is not None else BytesMessage(message.get("bytes") or b"")
        await self._connection.write(self._frames.send(event))

    async def finish(self, *, has_failed: bool) -> None:
        """Close it when the application is done, and wait a moment for the peer to agree."""
        assert self._frames is not None, "it was accepted"
        if self._frames.state is ConnectionState.OPEN:
            await self._say(CloseConnection(_FAILED if has_failed else _NORMAL))
        with trio.move_on_after(self._connection.service.limits.linger):
            while self._closed is None and self._frames.state is ConnectionState.LOCAL_CLOSING:
                self._connection.place.wait()
                if await self._there(self._frames) is None and self._closed is None:
                    await self._more(self._frames, 0)

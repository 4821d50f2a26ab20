"""One request and its answer, as ASGI: neither runs ahead of who takes it, application or client.

Nothing reads in the background: the connection is read by whoever waits in `receive`, so a hang-up is seen by an
application that listens for it and by nobody else. What a client sends ahead of its turn stays where it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import MutableMapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import h11
import trio

from hub_server.http.limits import READ
from hub_server.http.request import Head, Refused, without_quotes

if TYPE_CHECKING:
    from hub_server.http.connection import Connection

__all__ = ["Exchange", "HungUp", "Message", "date_now", "reason_of", "take"]

Message: TypeAlias = MutableMapping[str, Any]

# Pieces of a body that are handed over together: tiny chunks must not keep the hub from everything else.
_PIECES: Final = 256
# How often a client that has sent much ahead of its turn is looked after, in seconds.
_LOOK_EVERY: Final = 1.0
# How long an application may go on to wait for a message after it has answered, in seconds.
_NO_MORE: Final = 5.0
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


async def take(lock: trio.Lock) -> None:
    """Take a lock; where it is free without giving others a turn, which every piece sent gives them anyway."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


class HungUp(OSError):
    """Who asked is gone, or takes nothing, and the answer is not complete."""


def reason_of(status: int) -> bytes:
    """The reason phrase."""
    return _REASONS.get(status, b"Unknown")


def date_now(now: float) -> bytes:
    """The `date` field for a Unix time."""
    return _date(math.floor(now))


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Exchange:
    """What the application has of one request.

    Attributes:
        has_begun: the first octet of the answer left.
        is_answered: the answer is complete, and all of it was handed to the kernel.
        is_gone: the client hung up, or was given up, before that.
        fault: why the client was given up, where it can be told.
        work: the scope of the application's work.
    """

    def __init__(self, connection: Connection, head: Head, request_id: str) -> None:
        """Begin one; h11 has read the head."""
        self._connection = connection
        self._http = connection.http
        self._head = head
        self._id = request_id.encode()
        self._start: h11.Response | None = None
        self._has_body = True
        self._events: deque[h11.Event] = deque()  # of the body: looked at, not handed over
        self._is_read = False
        self._octets, self._waited = 0, 0.0
        self._reading, self._writing = trio.Lock(), trio.Lock()
        self._answered = trio.Event()
        self._watching = trio.CancelScope()
        self.has_begun = self.is_gone = False
        self.fault: Refused | None = None
        self.work = trio.CancelScope()

    @property
    def is_answered(self) -> bool:
        """Whether the answer is complete."""
        return self._answered.is_set()

    # --- receive -----------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next piece of the body; after the last, `http.disconnect` if the client hangs up on an open answer."""
        async with self._reading:
            if not self._is_read and not self.is_gone and (message := await self._piece()) is not None:
                return message
            await self.until_gone()
            return {"type": "http.disconnect"}

    async def _piece(self) -> Message | None:
        pieces: list[bytes] = []
        while len(pieces) < _PIECES:
            event = self._next_event()
            if isinstance(event, h11.Data):
                pieces.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._is_read = True
                break
            elif pieces:
                break
            elif self.is_gone or not await self._more():
                return None
        return {"type": "http.request", "body": b"".join(pieces), "more_body": not self._is_read}

    def _next_event(self) -> h11.Event | None:
        """An event of the body, if one is there."""
        try:
            return self._events.popleft() if self._events else self._pulled()
        except h11.RemoteProtocolError as problem:
            self._give_up(Refused(400, f"the body is malformed: {without_quotes(problem)}"))
            return None

    def _pulled(self) -> h11.Event | None:
        event = self._http.next_event()
        return event if isinstance(event, h11.Event) else None

    async def _more(self) -> bool:
        """Read some of the body; whether there was any."""
        connection, limits = self._connection, self._connection.service.limits
        if self._http.they_are_waiting_for_100_continue and not self.has_begun:
            interim = h11.InformationalResponse(status_code=100, headers=[], reason=reason_of(100))
            await connection.write(self._http.send(interim))
        patience = min(limits.body, limits.body + self._octets / limits.body_rate - self._waited)
        began = trio.current_time()
        connection.place.wait()
        try:
            data = await connection.read(max(patience, 0))
        except trio.TooSlowError:
            self._give_up(Refused(408, "the body came too slowly"))
            return False
        finally:
            connection.place.work()
            self._waited += trio.current_time() - began
        if not data:
            self.is_gone = not self.is_answered
            return False
        self._octets += len(data)
        self._http.receive_data(data)
        return True

    def _give_up(self, fault: Refused) -> None:
        if not self.is_answered:
            self.is_gone, self.fault = True, fault

    async def until_gone(self) -> None:
        """Wait until the client hangs up; where it does not before the answer is complete, for ever."""
        ahead = 0
        with trio.CancelScope() as self._watching:
            while not self.is_gone and not self.is_answered:
                if ahead >= READ:
                    # What more it sends stays where it is, so reading cannot tell its end: the kernel is asked.
                    await trio.sleep(_LOOK_EVERY)
                    self.is_gone = self._connection.has_hung_up() and not self.is_answered
                    continue
                data = await self._connection.read(math.inf)
                ahead += len(data)
                if data:
                    self._http.receive_data(data)
                elif not self.is_answered:
                    self.is_gone = True
        if self.is_gone:
            return
        # There is nothing to come. An application that has answered and still waits for it would wait for ever.
        await self._answered.wait()
        await trio.sleep(_NO_MORE)
        self.work.cancel()
        await trio.sleep_forever()

    # --- send --------------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Take the answer: its head, then pieces.

        Raises:
            HungUp: nobody is there to take it.
        """
        await take(self._writing)
        try:
            if self.is_gone or self._connection.is_broken:
                raise HungUp("the client is gone")
            if message["type"] == "http.response.start":
                await self._begin(message)
            elif message["type"] == "http.response.body":
                await self._continue(message.get("body", b""), is_last=not message.get("more_body", False))
            else:
                raise RuntimeError(f"{message['type']} is no part of an answer")
        finally:
            self._writing.release()

    async def _begin(self, message: Message) -> None:
        if self._start is not None:
            raise RuntimeError("an answer has one head")
        status, method = message["status"], self._head.method
        self._has_body = method != "HEAD" and status not in (204, 304)
        fields = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        dropped = {b"x-request-id"} | ({b"content-length", b"transfer-encoding"} if status == 204 else set())
        fields = [(name, value) for name, value in fields if name.lower() not in dropped]
        names = {name.lower() for name, _ in fields}
        if b"date" not in names:
            fields.append((b"date", date_now(self._connection.service.wall_clock())))
        fields.append((b"x-request-id", self._id))
        if self._connection.service.is_draining or not self._is_request_whole():
            fields.append((b"connection", b"close"))
        self._start = h11.Response(status_code=status, headers=fields, reason=reason_of(status))
        # Where the length is known the body is about to come: both leave together.
        if self._has_body and b"content-length" not in names:
            await self._write(self._head_octets())

    def _head_octets(self) -> list[bytes]:
        if self.has_begun or self._start is None:
            return []
        self.has_begun = True
        return self._http.send_with_data_passthrough(self._start) or []

    def _is_request_whole(self) -> bool:
        """Whether the rest of the body is there already, so that another request can follow this one."""
        is_whole = self._is_read
        try:
            while not is_whole and (event := self._pulled()) is not None:
                self._events.append(event)
                is_whole = isinstance(event, h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return False  # who reads on is told
        return is_whole

    async def _continue(self, body: bytes, *, is_last: bool) -> None:
        if self._start is None:
            raise RuntimeError("the head of an answer comes first")
        if self.is_answered:
            raise RuntimeError("the answer was complete")
        octets = self._head_octets()
        if body and self._has_body:
            octets += self._http.send_with_data_passthrough(h11.Data(data=body)) or []
        if is_last:
            octets += self._http.send_with_data_passthrough(h11.EndOfMessage()) or []
        await self._write(octets)
        if is_last:
            self._answered.set()
            self._watching.cancel()

    async def _write(self, octets: list[bytes]) -> None:
        data = octets[0] if len(octets) == 1 else b"".join(octets)
        if data:
            await self._connection.write(data)

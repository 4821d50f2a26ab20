"""One request of kubectl and its answer, as an ASGI server gives and takes them.

`Body` hands on what is sent, and afterwards notices that who asked hung up; `Answering` sends the answer, or a refusal
as a Kubernetes `Status`. They know no cluster and no right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import trio
import trio.lowlevel

from hub_server.domain.headers import status_document

__all__ = ["Answering", "Body", "BodyTooLarge", "HungUp", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Of a body that is not wanted, so much is taken for so long: who is still sending reads no answer, and a connection
# that is closed under it is a "broken pipe" instead of the reason.
_DRAINED: Final = 256 * 2**20
_DRAINED_WITHIN: Final = 10.0


class BodyTooLarge(Exception):
    """More octets than a request may have."""


class HungUp(Exception):
    """Who asked is gone."""


class Answering:
    """The answer to who asked, over HTTP or in place of a WebSocket.

    Attributes:
        has_begun: its head was sent.
        is_ending: its last octet was given to the server: who hangs up from now on has it all.
    """

    def __init__(self, send: Send, kind: str) -> None:
        """`kind` is the ASGI name of the messages."""
        self._send = send
        self._kind = kind
        self.has_begun = False
        self.is_ending = False

    async def begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Send the head."""
        self.has_begun = True
        await self._tell({"type": f"{self._kind}.start", "status": status, "headers": fields})

    async def piece(self, octets: bytes) -> None:
        """Send a piece of the body; returns when the server took it."""
        await self._tell({"type": f"{self._kind}.body", "body": octets, "more_body": True})

    async def end(self, octets: bytes = b"") -> None:
        """Send the last piece."""
        self.is_ending = True
        await self._tell({"type": f"{self._kind}.body", "body": octets, "more_body": False})

    async def _tell(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI's word for a client that is gone
            raise HungUp from None

    async def refuse(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        request_id: str = "",
        is_head: bool = False,
        as_text: bool = False,
        extra: list[tuple[bytes, bytes]] | None = None,
        cause: str | None = None,
    ) -> None:
        """A `Status` in place of an answer.

        Args:
            status: of HTTP.
            reason: Kubernetes' word.
            message: to people.
            request_id: to find it again in the audit.
            is_head: only the head was asked for.
            as_text: the message alone, for who does not read a `Status`.
            extra: more fields.
            cause: a word for what tells causes apart.
        """
        document = message.encode() if as_text else status_document(status, reason, message, cause=cause)
        fields = [
            (b"content-type", b"text/plain; charset=utf-8" if as_text else b"application/json"),
            (b"content-length", b"%d" % len(document)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if request_id:
            fields.append((b"daalu-request-id", request_id.encode()))
        await self.begin(status, fields + (extra or []))
        await self.end(b"" if is_head else document)


class Body:
    """The body of a request; and afterwards the news that who asked has hung up.

    Attributes:
        octets: that came so far.
        problem: why nothing more comes, and nothing more is to be done; whoever waits was cancelled.
    """

    def __init__(self, receive: Receive, most: int, *, is_wanted: bool) -> None:
        """`most` octets; `is_wanted` says whether there is a body at all."""
        self._receive = receive
        self._most = most
        self._is_read = trio.Event()
        self.octets = 0
        self.problem: BodyTooLarge | HungUp | None = None
        self.scope = trio.CancelScope()
        if not is_wanted:
            self._is_read.set()

    async def send_on(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send every piece on before the next is taken."""
        while not self._is_read.is_set():
            piece = await self._piece()
            if self.octets > self._most:
                await self._fail(BodyTooLarge())
            if piece:
                await send(piece)

    async def watch(self, answer: Answering) -> None:
        """Wait until who asked hangs up; after the whole answer that is no news."""
        await self._is_read.wait()
        while (await self._receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
            pass
        if not answer.is_ending:
            await self._fail(HungUp())

    async def until_read(self) -> None:
        """Wait, for a while, until all of it was taken by `send_on`."""
        with trio.move_on_after(_DRAINED_WITHIN):
            await self._is_read.wait()

    async def drain(self) -> bool:
        """Take what is left of a body that nobody wants; returns whether it came to its end."""
        with trio.move_on_after(_DRAINED_WITHIN):
            while not self._is_read.is_set() and self.octets < _DRAINED and not isinstance(self.problem, HungUp):
                await self._piece()
        return self._is_read.is_set()

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            await self._fail(HungUp())
        piece: bytes = message.get("body", b"")
        self.octets += len(piece)
        if not message.get("more_body", False):
            self._is_read.set()
        return piece

    async def _fail(self, problem: BodyTooLarge | HungUp) -> None:
        """Stop everything that is done for this request, this task too."""
        self.problem = self.problem or problem
        self.scope.cancel()
        await trio.lowlevel.checkpoint()

"""One request and its answer, passed on by a proxy: h11 knows where each of them ends.

    client -- request --> h11 SERVER -> h11 CLIENT -- request, Connection: close --> origin server
    client <-- answer --  h11 SERVER <- h11 CLIENT <-- answer, 1xx before it ----    origin server

Request and answer travel at the same time: a server may answer before it has read everything, and a client may wait for
`100 Continue`. Fields that are meant for one hop stay here, and each hop has a framing of its own.

Source: RFC 9110 sections 7.6.1, 7.6.3 and 10.1.1; RFC 9112 sections 6.3, 7 and 9.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from wgpy.adapters.net import abort
from wgpy.adapters.proxies.gate import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wgpy.adapters.proxies.gate import Gate
    from wgpy.adapters.proxies.reading import BufferedStream

__all__ = ["Fields", "Request", "exchange", "without_hops"]

Fields = list[tuple[bytes, bytes]]

_LARGEST_HEAD: Final = 65536
_VIA: Final = (b"Via", b"1.1 wgpy")
# RFC 9110 7.6.1; Proxy-Connection is what old clients invented. Transfer-Encoding is h11's, which makes its own.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    )
)


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request, as its origin server is to get it but for the framing.

    Attributes:
        method: such as GET.
        path: and query.
        version: of the client, HTTP/1.0 or HTTP/1.1.
        fields: end to end.
        is_last: the client wants no other answer on its connection.
    """

    method: bytes
    path: bytes
    version: bytes
    fields: Fields
    is_last: bool

    def head(self) -> bytes:
        """As octets, for h11 to read."""
        fields = [*self.fields, (b"Connection", b"close")] if self.is_last else self.fields
        lines = [b" ".join((self.method, self.path, self.version)), *(name + b": " + value for name, value in fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n"


def without_hops(fields: Fields) -> tuple[set[bytes], Fields]:
    """What `Connection` named, in lower case, and the fields that go from end to end."""
    named = {
        token.strip().lower() for name, value in fields if name.lower() == b"connection" for token in value.split(b",")
    }
    # RFC 9112 6.1: what says where a message ends cannot be talked away.
    dropped = (_HOP_BY_HOP | named) - {b"content-length", b"transfer-encoding", b"host"}
    return named, [(name, value) for name, value in fields if name.lower() not in dropped]


async def exchange(
    client: BufferedStream,
    origin: Any,
    request: Request,
    gate: Gate,
    refuse: Callable[[BufferedStream, HTTPStatus, str], Awaitable[None]],
) -> bool:
    """Pass a request on and its answer back.

    Args:
        client: whose head was read, and nothing after it.
        origin: a connection to the server, for this request only; closed at the end.
        request: as its head said.
        gate: counts octets, and says how long to wait.
        refuse: answers the client in the words of the proxy.

    Returns:
        Whether the client may send another request.

    Raises:
        Refused: the request cannot be understood.
        trio.BrokenResourceError: the client went, or the server went in the middle of its answer.
    """
    passing = _Passing(client, origin, gate)
    is_over = False
    try:
        problem = await passing.run(request)
        if isinstance(problem, h11.RemoteProtocolError):
            await refuse(client, HTTPStatus.BAD_REQUEST, str(problem))
            raise Refused("malformed")
        if isinstance(problem, _BadAnswer):
            gate.refused["unreachable"] += 1
            if passing.has_answered:
                raise trio.BrokenResourceError("the server left in the middle of its answer")
            await refuse(client, HTTPStatus.BAD_GATEWAY, f"the server did not answer: {problem}")
        elif problem is not None:
            raise problem
        elif passing.patience.cancelled_caught:
            gate.refused["idle timed out"] += 1
        else:
            await origin.aclose()
            is_over = True
    finally:
        if not is_over:
            with trio.CancelScope(shield=True):
                await abort(origin)
    return is_over and passing.give_back()


def _answered(event: h11.Response | h11.InformationalResponse) -> Fields:
    """The fields of an answer as the client gets them; where chunks said its end, they do so again, and alone."""
    fields = without_hops(list(event.headers.raw_items()))[1]
    is_chunked = any(name.lower() == b"transfer-encoding" for name, _ in fields)
    framing = {b"transfer-encoding", b"content-length"} if is_chunked else set()
    return [*((name, value) for name, value in fields if name.lower() not in framing), _VIA]


class _BadAnswer(Exception):
    """The server went, or does not speak HTTP."""


class _Passing:
    """A request and its answer on their way."""

    def __init__(self, client: BufferedStream, origin: Any, gate: Gate) -> None:
        self._client, self._origin, self._gate = client, origin, gate
        self._here = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._there = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self._head = b""
        self._problem: Exception | None = None
        self.has_answered = False
        self.patience = trio.CancelScope()

    async def run(self, request: Request) -> Exception | None:
        """Both ways at once, until the answer is over; what went wrong first."""
        try:
            self._begin(request)
        except h11.RemoteProtocolError as problem:
            return problem

        async def half(copy: Callable[[], Awaitable[None]]) -> None:
            try:
                await copy()
            except (h11.RemoteProtocolError, _BadAnswer, trio.BrokenResourceError, OSError) as problem:
                self._problem = self._problem or problem
                self.patience.cancel()

        with self.patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(half, self._send_request)
                await half(self._send_answer)
                nursery.cancel_scope.cancel()
        return self._problem

    def _begin(self, request: Request) -> None:
        """Read the head of the request."""
        self._here.receive_data(request.head())
        event = self._here.next_event()
        assert isinstance(event, h11.Request), "the head is whole"
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
            raise h11.RemoteProtocolError("a request says in two ways where it ends")  # RFC 9112 6.1
        fields = [(name, value) for name, value in event.headers.raw_items() if name.lower() != b"connection"]
        head = h11.Request(method=event.method, target=event.target, headers=[*fields, _VIA, (b"Connection", b"close")])
        self._head = self._there.send(head) or b""
        self._moved()

    def _moved(self) -> None:
        self.patience.deadline = trio.current_time() + (self._gate.limits.idle_timeout or float("inf"))

    async def _send_request(self) -> None:
        """From the client to the server; a server that does not want to read more has perhaps answered already."""
        try:
            await self._origin.send_all(self._head)
        except (trio.BrokenResourceError, OSError):
            return
        while True:
            event = self._here.next_event()
            if event is h11.NEED_DATA:
                data = await self._client.receive_some()
                self._gate.traffic.up += len(data)
                self._moved()
                self._here.receive_data(bytes(data))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                try:
                    await self._origin.send_all(self._there.send(event) or b"")
                except (trio.BrokenResourceError, OSError):
                    return
                if isinstance(event, h11.EndOfMessage):
                    return
            else:
                raise trio.BrokenResourceError("the client left in the middle of its request")

    async def _send_answer(self) -> None:
        """From the server to the client."""
        while True:
            event = await self._next_answer()
            if isinstance(event, h11.InformationalResponse | h11.Response):
                is_final = isinstance(event, h11.Response)
                if not is_final and self._here.their_http_version == b"1.0":
                    continue  # RFC 9110 15.2: such a client knows nothing of it
                self.has_answered |= is_final
                head = type(event)(status_code=event.status_code, headers=_answered(event), reason=event.reason)
                await self._tell(head)
            else:
                await self._tell(event)
                if isinstance(event, h11.EndOfMessage):
                    return

    async def _next_answer(self) -> Any:
        try:
            while True:
                event = self._there.next_event()
                if event is not h11.NEED_DATA:
                    if not isinstance(event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage):
                        raise _BadAnswer("it hung up")
                    return event
                self._there.receive_data(bytes(await self._origin.receive_some()))
        except (h11.RemoteProtocolError, trio.BrokenResourceError, OSError) as problem:
            raise _BadAnswer(str(problem) or type(problem).__name__) from problem

    async def _tell(self, event: Any) -> None:
        try:
            octets = self._here.send(event) or b""
        except h11.LocalProtocolError as problem:
            raise _BadAnswer(str(problem)) from problem
        self._moved()
        await self._client.send_all(octets)
        self._moved()
        self._gate.traffic.down += len(octets)

    def give_back(self) -> bool:
        """Whether both sides of the client's connection are done; what it sent ahead is its next request."""
        if self._here.our_state is not h11.DONE or self._here.their_state is not h11.DONE:
            return False
        ahead, _ = self._here.trailing_data
        self._client.push_back(ahead)
        return True

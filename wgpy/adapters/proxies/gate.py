"""The gate in front of every proxy: who may come in, how many at once, for how long; and what is counted."""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy.adapters.net import abort, as_os_error
from wgpy.adapters.relay import Traffic, relay
from wgpy.netstack.constants import KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES
from wgpy.netstack.tcp.keepalive import Keepalive
from wgpy.runtime.groups import caught

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["DATAGRAM_BUFFER", "Credentials", "Gate", "Limits", "Refused"]

# Octets that the kernel keeps of what clients send while we are at something else; it may give less.
DATAGRAM_BUFFER: Final = 4 << 20


# As those of our own stack.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(KEEPALIVE_IDLE)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(KEEPALIVE_INTERVAL)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
)

_log = logging.getLogger("wgpy.proxy")


class Refused(Exception):
    """A client is turned away; whoever speaks with it has told it so. Its text is the label of a counter."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password.

    Attributes:
        user: its name.
        password: never shown.
    """

    user: str
    password: str = field(repr=False)

    def match(self, user: bytes, password: bytes) -> bool:
        """Whether these are the ones, in a time that does not depend on how wrong they are."""
        is_user = hmac.compare_digest(user, self.user.encode())
        return hmac.compare_digest(password, self.password.encode()) and is_user


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a gate lets in.

    Attributes:
        connections: at once; further ones are reset.
        idle_timeout: seconds without an octet either way. RFC 5382 asks 2 hours and 4 minutes of a NAT.
        half_closed_timeout: the same once one side has said that it will send no more. RFC 5382 asks 4 minutes.
        greeting_timeout: seconds that a client may take to say what it wants.
        datagram_timeout: seconds that a UDP mapping lives without traffic. RFC 4787 asks for 2 minutes at least.
        datagram_flows: UDP mappings at once; the one that was idle for longest goes first.
    """

    connections: int = 512
    idle_timeout: float = 7440.0
    half_closed_timeout: float = 240.0
    greeting_timeout: float = 20.0
    datagram_timeout: float = 120.0
    datagram_flows: int = 512


class Gate:
    """What all doors of one proxy share.

    Attributes:
        limits: how much it lets in.
        credentials: what a client must show, None for nothing.
        open: connections at this moment.
        accepted: connections ever.
        refused: connections turned away or failed, by reason.
        traffic: octets from clients into the tunnel (up) and back (down).
        datagrams: the same for datagrams, in datagrams.
    """

    def __init__(self, *, limits: Limits | None = None, credentials: Credentials | None = None) -> None:
        """Stand there; `serve` lets clients in."""
        self.limits = limits or Limits()
        self.credentials = credentials
        self.open = 0
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.traffic = Traffic()
        self.datagrams = Traffic()
        self._idle = trio.Event()
        self._idle.set()

    async def serve(
        self,
        listeners: Sequence[Any],
        handler: Callable[[Any], Awaitable[None]],
        handlers: trio.Nursery,
    ) -> None:
        """Accept until cancelled. Connections live in the other nursery, and go on when accepting ends.

        Args:
            listeners: where clients come in.
            handler: speaks with one client.
            handlers: the nursery of connections.
        """

        async def guarded(stream: Any) -> None:
            if self.open >= self.limits.connections:
                self.refused["too many connections"] += 1
                await abort(stream)
                return
            _notice_when_gone(stream)
            if not self.open:
                self._idle = trio.Event()
            self.open += 1
            self.accepted += 1
            # What a client does wrong, what breaks on its way, and what we do wrong, concerns nobody else.
            try:
                with caught(Exception) as problems:
                    await handler(stream)
                for problem in problems:
                    self._note(problem)
            finally:
                self.open -= 1
                if not self.open:
                    self._idle.set()
                with contextlib.suppress(trio.BrokenResourceError, OSError):
                    await stream.aclose()

        await trio.serve_listeners(guarded, list(listeners), handler_nursery=handlers)

    def _note(self, problem: Exception) -> None:
        if isinstance(problem, Refused):
            self.refused[str(problem)] += 1
        elif not isinstance(problem, trio.BrokenResourceError | trio.ClosedResourceError | OSError):
            self.refused["defect"] += 1
            _log.error("a defect ended a connection; please report this", exc_info=problem)

    @contextlib.contextmanager
    def greeting(self) -> Any:
        """A client says what it wants, in time.

        Raises:
            Refused: it did not.
        """
        try:
            with trio.fail_after(self.limits.greeting_timeout):
                yield
        except trio.TooSlowError:
            raise Refused("greeting timed out") from None

    async def relay(self, client: Any, inside: Any) -> None:
        """Join a client and its connection in the tunnel, until both have ended."""
        problem = await relay(
            client,
            inside,
            idle_timeout=self.limits.idle_timeout or math.inf,
            half_closed_timeout=self.limits.half_closed_timeout,
            traffic=self.traffic,
        )
        if isinstance(problem, TimeoutError):
            self.refused["idle timed out"] += 1

    async def wait_idle(self) -> None:
        """Return when no connection is open."""
        await self._idle.wait()

    def failed(self, problem: BaseException) -> OSError:
        """Count a connection that could not be made in the tunnel; the error that says why."""
        error = as_os_error(problem)
        self.refused["unreachable"] += 1
        return error


def _notice_when_gone(stream: Any) -> None:
    """Let the kernel ask a silent client whether it is still there; one that closed for good answers with a reset."""
    if isinstance(stream, trio.SocketStream):
        for level, option, value in _KEEPALIVE:
            stream.setsockopt(level, option, value)
    elif hasattr(stream, "set_keepalive"):
        stream.set_keepalive(Keepalive())

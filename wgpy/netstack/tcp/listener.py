"""Passive opens: half-open connections stand apart from those that wait to be accepted, and both queues are bounded.

    SYN -> half_open (when full: a cookie, see `syncookies`) -> its ACK -> accepted, if there is room -> accept()

Source: RFC 9293 3.10.7.2, RFC 4987.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.host import TcpHost

__all__ = ["TcpListener"]


class TcpListener:
    """Connections to one port. Make one with `Stack.listen_tcp`.

    Attributes:
        host: our address, None for all.
        port: ours.
        backlog: connections that may wait to be accepted.
        half_open: those whose SYN we answered, oldest first.
        is_closed: nobody listens any more.
    """

    __slots__ = ("_accepted", "_tcp", "address", "backlog", "half_open", "host", "is_closed", "port")

    def __init__(self, tcp: TcpHost, address: bytes | None, host: str | None, port: int, backlog: int) -> None:
        """Use `Stack.listen_tcp`."""
        self._tcp = tcp
        self.address = address
        self.host = host
        self.port = port
        self.backlog = max(backlog, 1)
        self.half_open: OrderedDict[bytes, TcpConnection] = OrderedDict()
        self.is_closed = False
        self._accepted: deque[TcpConnection] = deque()

    @property
    def has_room(self) -> bool:
        """Whether one more connection may wait to be accepted."""
        return len(self._accepted) < self.backlog

    @property
    def is_readable(self) -> bool:
        """Whether `accept` would give a connection."""
        return bool(self._accepted) or self.is_closed

    @property
    def is_writable(self) -> bool:
        """A listener is not written to."""
        return False

    def established(self, conn: TcpConnection) -> None:
        """The handshake of a half-open connection was completed."""
        self.half_open.pop(conn.key, None)
        self._accepted.append(conn)
        self._tcp.mark_ready(self)

    def forget(self, conn: TcpConnection) -> None:
        """A connection ended; one that was reset while it waited is still accepted, with its error."""
        self.half_open.pop(conn.key, None)

    def accept(self) -> TcpConnection | None:
        """The oldest established connection that nobody took yet; None when there is none."""
        if not self._accepted:
            return None
        conn = self._accepted.popleft()
        conn.listener = None
        return conn

    def close(self, now: float) -> None:
        """Listen no more; connections not yet accepted are reset. Twice is no error."""
        if self.is_closed:
            return
        self.is_closed = True
        self._tcp.unlisten(self)
        for conn in [*self.half_open.values(), *self._accepted]:
            conn.is_orphan = True
            conn.abort(now)
        self.half_open.clear()
        self._accepted.clear()
        self._tcp.mark_ready(self)

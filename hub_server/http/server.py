"""The accept loop: a place for whoever comes, a task for each connection, and an end in order.

    accept -> room.admit -> TLS (transport.py) -> Connection.run -> close

Nothing that a connection does or raises leaves its task. Whatever accept() reports short of the listener's own end is
waited out: the descriptors that are missing are there again when somebody leaves, and one who only waits is sent away.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from hub_server import supervise
from hub_server.http.connection import Connection, Service
from hub_server.http.room import Place, Room
from hub_server.http.transport import NotTls, Transport, close, open_tls, why_tls_failed

__all__ = ["Server", "Statistics"]

_log = structlog.get_logger("hub.http")

# accept() says that there is no room in the process or the system; pause, in seconds.
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.1
_AT_A_TIME: Final = 32
# The listener itself is gone.
_NO_LISTENER: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a server has seen, and what it holds.

    Attributes:
        open: connections now.
        waiting: those of them that wait for their peer.
        accepted: ever.
        evicted: whose place went to another one.
        refused: for whom there was none.
        happenings: what strangers did, by kind.
    """

    open: int
    waiting: int
    accepted: int
    evicted: int
    refused: int
    happenings: Mapping[str, int]


class Server:
    """HTTP/1.1 and WebSocket on listening sockets."""

    def __init__(
        self, service: Service, room: Room, *, context: ssl.SSLContext | None = None, drain: float = 10
    ) -> None:
        """Make one.

        Args:
            service: the application, and what belongs to each connection.
            room: places for connections.
            context: for TLS; what is loaded into it later counts for later connections. None for plain HTTP.
            drain: seconds that open requests may take to end when the server stops.
        """
        self._service = service
        self._room = room
        self._context = context
        self._drain = drain
        self._accepted = self._refused = 0

    @property
    def statistics(self) -> Statistics:
        """A snapshot."""
        room = self._room
        return Statistics(
            room.taken, room.waiting, self._accepted, room.evicted, self._refused, dict(self._service.chatter.counts)
        )

    async def serve(
        self,
        listeners: Sequence[socket.socket],
        stopping: trio.Event,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping` is set and the open requests are over, or have had their time.

        Args:
            listeners: sockets that listen and do not block; closed when no new connection is taken.
            stopping: the end of that.
            task_status: told when connections are taken.

        Raises:
            OSError: a listener is gone.
        """
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        supervise.start_part(accepting, self._accept, listener, connections)
                    task_status.started()
                    await stopping.wait()
                    accepting.cancel_scope.cancel()
            finally:
                for listener in listeners:
                    trio.lowlevel.notify_closing(listener)
                    listener.close()
            self._service.drain()
            connections.cancel_scope.deadline = trio.current_time() + self._drain

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            # Several at a time: one for each turn of everybody else would make a queue of them under load.
            for _ in range(_AT_A_TIME):
                try:
                    accepted, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as problem:
                    if problem.errno in _NO_LISTENER:
                        raise
                    # ECONNABORTED, EPERM and what the network reports of a connection that is gone: the next, please.
                    if problem.errno in _NO_ROOM:
                        self._service.chatter.note("no connection could be taken", "", problem.strerror or "")
                        self._room.evict()
                        await trio.sleep(_PAUSE)
                    break
                self._admit(accepted, address[0], address[1], connections)

    def _admit(self, accepted: socket.socket, host: str, port: int, connections: trio.Nursery) -> None:
        self._accepted += 1
        accepted.setblocking(False)
        stream = trio.socket.from_stdlib_socket(accepted)
        place = self._room.admit(host, stream.close)
        if place is None:
            self._refused += 1
            self._service.chatter.note("a connection was refused: no place is left", host)
            stream.close()
            return
        victim = f"{host}:{port}"
        supervise.start_once(connections, "connection", self._serve_one, stream, (host, port), place, victim=victim)

    async def _serve_one(self, accepted: trio.socket.SocketType, client: tuple[str, int], place: Place) -> None:
        transport = Transport(accepted, self._service.limits)
        try:
            await self._speak(transport, accepted, client, place)
        finally:
            accepted.close()
            place.leave()

    async def _speak(
        self, transport: Transport, accepted: trio.socket.SocketType, client: tuple[str, int], place: Place
    ) -> None:
        try:
            transport.prepare()
            server = accepted.getsockname()[:2]
        except OSError:
            return  # gone already
        stream: trio.abc.Stream | None = transport
        if self._context is not None and (stream := await self._tls(transport, self._context, client)) is None:
            await close(transport)
            return
        assert stream is not None, "TLS, or none wanted"
        is_tls = self._context is not None
        connection = Connection(
            stream,
            self._service,
            place,
            client=client,
            server=server,
            is_tls=is_tls,
            has_hung_up=transport.has_hung_up,
        )
        await connection.run()
        transport.lingers = connection.lingers
        if connection.is_broken:
            transport.break_off(is_reset=not is_tls)
            return
        place.wait()
        await close(stream)

    async def _tls(
        self, transport: Transport, context: ssl.SSLContext, client: tuple[str, int]
    ) -> trio.SSLStream[Transport] | None:
        peer, chatter = f"{client[0]}:{client[1]}", self._service.chatter
        try:
            if (stream := await open_tls(transport, context, self._service.limits)) is None:
                chatter.note("a client left before TLS", peer)
            return stream
        except NotTls as problem:
            chatter.note("a client did not speak TLS", peer, str(problem))
        except trio.TooSlowError:
            chatter.note("a TLS handshake took too long", peer)
        except trio.BrokenResourceError as problem:
            kind, detail = why_tls_failed(problem)
            chatter.note(kind, peer, detail)
        except trio.ClosedResourceError:
            pass  # the place was lost to another connection
        return None

"""The way between workers of one interface, for what comes to the wrong one: a datagram socket into each.

This is the slow path, taken until the kernel has learnt which queue a flow belongs to, and by initiations, whose sender
nobody knows before they are opened.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from typing import Final

from wgpy.config import Endpoint
from wgpy.constants import INITIATION_SIZE
from wgpy.dataplane.slab import Arena, Slab
from wgpy.protocol.shard import Forward
from wgpy.runtime.udp import Local

__all__ = ["Mesh"]

_BUFFER_SIZE: Final = 4 * 2**20
_MESSAGE_SIZE: Final = 2**17
_PACKETS, _INITIATION = b"P", b"I"
# Of a slab: stride, count, length, last length. Of an initiation: IP version and octets of the local address.
_SLAB: Final = struct.Struct("<4I")
_LOCAL: Final = struct.Struct("<BB")


class Mesh:
    """One worker's end.

    Attributes:
        number: of the worker.
    """

    def __init__(self, number: int, inbox: socket.socket, outboxes: Sequence[socket.socket]) -> None:
        """Take over the sockets; `create` makes them."""
        self.number = number
        self._inbox = inbox
        self._outboxes = outboxes

    @classmethod
    def create(cls, workers: int) -> list[Mesh]:
        """The ends of so many workers, to be inherited by them."""
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)]
        for pair in pairs:
            for one in pair:
                one.setblocking(False)
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
        outboxes = [outbox for _, outbox in pairs]
        return [cls(number, inbox, outboxes) for number, (inbox, _) in enumerate(pairs)]

    def fileno(self) -> int:
        """Readable when `receive` has something."""
        return self._inbox.fileno()

    def close(self) -> None:
        """Take nothing more."""
        self._inbox.close()
        for outbox in self._outboxes:
            outbox.close()

    def send(self, forwards: Sequence[Forward]) -> int:
        """Pass everything on; says how many packets found no room."""
        lost = 0
        for forward in forwards:
            try:
                self._outboxes[forward.worker].send(_encode(forward))
            except OSError:
                lost += forward.slab.count if forward.slab is not None else 1
        return lost

    def receive(self, most: int = 64) -> list[Forward]:
        """What other workers passed on."""
        forwards: list[Forward] = []
        with contextlib.suppress(OSError):
            while len(forwards) < most:
                forwards.append(_decode(self.number, self._inbox.recv(_MESSAGE_SIZE)))
        return forwards


def _encode(forward: Forward) -> bytes:
    slab = forward.slab
    if slab is not None:
        shape = _SLAB.pack(slab.stride, slab.count, slab.length, slab.last_length)
        return b"".join((_PACKETS, shape, slab.datagrams))
    local = forward.local
    version, octets = (local.version, local.octets) if isinstance(local, Local) else (0, b"")
    place = _LOCAL.pack(version, len(octets)) + octets
    return b"".join((_INITIATION, forward.initiation, place, str(forward.remote).encode()))


def _decode(worker: int, message: bytes) -> Forward:
    if message[:1] == _PACKETS:
        stride, count, length, last_length = _SLAB.unpack_from(message, 1)
        arena = Arena(bytearray(message[1 + _SLAB.size :]))
        return Forward(worker, Slab(arena, 0, stride, count, length, last_length))
    end = 1 + INITIATION_SIZE
    version, size = _LOCAL.unpack_from(message, end)
    rest = message[end + _LOCAL.size :]
    local = Local(version, rest[:size]) if version else None
    return Forward(worker, None, message[1:end], Endpoint.parse(rest[size:].decode()), local)

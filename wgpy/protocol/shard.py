"""Which worker a peer belongs to, where several processes share one interface and one port.

All of them know all peers, but only its own worker holds a peer's keys, sessions and timers; to the others it is a name
with prefixes. The rule needs no table: the public key says it for a peer, the receiver index for a session, because a
worker only hands out indices of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wgpy.config import Endpoint
    from wgpy.dataplane.slab import Slab
    from wgpy.keys import PublicKey

__all__ = ["Forward", "Shard"]


class Shard(NamedTuple):
    """One worker among several.

    Attributes:
        number: from 0; one that no worker has means: holds no peer, only knows them.
        workers: how many there are, 1 to 128.
    """

    number: int = 0
    workers: int = 1

    def worker_of(self, public_key: PublicKey) -> int:
        """The worker that holds a peer. Public keys are as good as random."""
        return int.from_bytes(bytes(public_key)[:4]) % self.workers

    def may_use(self, index: bytes) -> bool:
        """Whether this worker may hand out a receiver index, given as the four octets of a datagram."""
        return self.workers == 1 or index[0] % self.workers == self.number


class Forward(NamedTuple):
    """Something that came to the wrong worker.

    Attributes:
        worker: whose it is.
        slab: packets for one of its peers, a copy; or None:
        initiation: an initiation of one of its peers, 148 octets, let in already.
        remote: where the initiation came from.
        local: where it was received.
    """

    worker: int
    slab: Slab | None = None
    initiation: bytes = b""
    remote: Endpoint | None = None
    local: object | None = None

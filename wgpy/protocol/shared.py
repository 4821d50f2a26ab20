"""What all peers of one engine share: who we are, the world as it was handed in, and the way out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from wgpy.constants import DEFAULT_MTU, MAX_UDP_PAYLOAD_IPV4, MAX_UDP_PAYLOAD_IPV6
from wgpy.noise import tai64n
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.indextable import IndexTable
from wgpy.protocol.shard import Shard
from wgpy.protocol.staging import StagingLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.config import Endpoint
    from wgpy.errors import DropReason
    from wgpy.keys import PrivateKey
    from wgpy.noise.keypair import Keypair
    from wgpy.protocol.events import Event
    from wgpy.protocol.peer import Peer

__all__ = ["Shared"]

# Events that nobody collects must not grow for ever; the oldest go first.
_EVENTS_KEPT: Final = 4096


class Shared:
    """One per engine.

    Attributes:
        private_key: ours, None when cleared: then nothing is sent and nothing answered.
        is_up: whether the interface is up.
        mtu: of the interface now; padding never exceeds it.
        copies_ecn: whether congestion marks cross between inner and outer headers (RFC 6040).
        indices: receiver index to the peer and its keypair; None stands for the initiation that waits for its response.
        shard: which peers are held here.
        staging: what all peers have staged together.
        outbox: datagrams to send, in order.
        events: for the owner.
        drops: packets refused, by reason.
        greatest_timestamp: of all initiations ever sent, TAI64N; an owner may store it and hand it in again (lesson
            S1).
    """

    __slots__ = (
        "_surpassed_by_all",
        "copies_ecn",
        "drops",
        "events",
        "greatest_timestamp",
        "indices",
        "is_up",
        "keylog",
        "mtu",
        "outbox",
        "private_key",
        "random",
        "shard",
        "staging",
        "wall_clock",
    )

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], float],
        keylog: Callable[[str], None] | None = None,
        mtu: int = DEFAULT_MTU,
        is_up: bool = True,
        copies_ecn: bool = True,
        last_timestamp: bytes = b"",
        shard: Shard = Shard(),  # noqa: B008 - immutable
    ) -> None:
        """Take the world as it was handed to the engine."""
        self.private_key: PrivateKey | None = None
        self.is_up = is_up
        self.mtu = mtu
        self.copies_ecn = copies_ecn
        self.random = random
        self.wall_clock = wall_clock
        self.keylog = keylog
        self.indices: IndexTable[tuple[Peer, Keypair | None]] = IndexTable(random, shard)
        self.staging = StagingLimit()
        self.shard = shard
        self.outbox: list[DatagramBatch] = []
        self.events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self.drops: dict[DropReason, int] = {}
        self.greatest_timestamp = last_timestamp
        # Whoever is new to us may have been sent this one before: by an earlier run, or as a peer that was removed.
        self._surpassed_by_all = last_timestamp

    def next_timestamp(self, last_sent: bytes) -> bytes:
        """A TAI64N timestamp above `last_sent`, and never below any other that we sent.

        A responder refuses what is not newer (trap T14), and the wall clock may be set back; a peer that is removed and
        added again must not fall behind what it sent before (lesson S1).
        """
        wall = self.wall_clock()
        last_sent = last_sent or self._surpassed_by_all
        stamp = tai64n.next_after(last_sent, wall) if last_sent else tai64n.timestamp(wall)
        stamp = self.greatest_timestamp = max(stamp, self.greatest_timestamp)
        return stamp

    def peer_removed(self) -> None:
        """Remember what it may have been sent, in case it comes back: an equal timestamp would be refused too."""
        self._surpassed_by_all = self.greatest_timestamp

    def unit(self) -> float:
        """A random number from 0 up to 1, for jitter."""
        return int.from_bytes(self.random(4)) / 2**32

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count packets refused."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def send_message(
        self, message: bytes, remote: Endpoint, local: object | None, tos: int, owner: Peer | None
    ) -> None:
        """Queue one handshake message."""
        self.outbox.append(DatagramBatch(message, len(message), remote, local=local, tos=tos, owner=owner))


def largest_datagram(remote: Endpoint) -> int:
    """Octets of UDP payload that fit into one IP packet towards `remote`."""
    return MAX_UDP_PAYLOAD_IPV4 if remote.version == 4 else MAX_UDP_PAYLOAD_IPV6

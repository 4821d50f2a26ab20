"""Receiver indices.

32 random bits to the handshake or keypair they stand for (whitepaper 5.4; trap T12, lesson S15).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from wgpy.protocol.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IndexTable"]

Owner = TypeVar("Owner")


class IndexTable(Generic[Owner]):
    """Unique over all handshakes and keypairs of a device, never sequential.

    Keyed by the four octets as they stand in a datagram, so that a received batch is looked up without unpacking.
    """

    __slots__ = ("_owners", "_random", "_shard")

    def __init__(self, random: Callable[[int], bytes], shard: Shard = Shard()) -> None:  # noqa: B008 - immutable
        """Draw indices from `random`, which returns that many unpredictable octets; the shard says which it may use."""
        self._shard = shard
        self._owners: dict[bytes, Owner] = {}
        self._random = random

    def allocate(self) -> int:
        """A fresh index; it is taken once `put` names its owner."""
        while (octets := self._random(4)) in self._owners or not self._shard.may_use(octets):
            pass
        return int.from_bytes(octets, "little")

    def put(self, index: int, owner: Owner) -> None:
        """Let the index stand for `owner`, as when a handshake becomes the keypair it made."""
        self._owners[index.to_bytes(4, "little")] = owner

    def release(self, index: int) -> None:
        """Let the index stand for nothing; datagrams that still carry it are dropped without an answer (T30)."""
        self._owners.pop(index.to_bytes(4, "little"), None)

    def lookup(self, octets: bytes) -> Owner | None:
        """The owner of an index given as the four octets of a datagram."""
        return self._owners.get(octets)

    def __len__(self) -> int:
        """How many indices are taken."""
        return len(self._owners)

"""Who may be connected: places in all and for each source, and who has to go when there is none left.

A connection waits for its peer (a handshake, a head, a body, the next request, an answer that nobody takes) or works
for it. When there is no place for a new one, the one that has waited longest goes: of the same source where that has
its share, otherwise of all. One that works is never thrown out. So a flood finds its own end, and who is slow or silent
loses before who is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import ip_address

__all__ = ["Place", "Room", "source_of"]


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one machine has for itself."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()


class Place:
    """One connection's place; made by `Room.admit`. The connection waits from the beginning."""

    def __init__(self, room: Room, source: str, end: Callable[[], None]) -> None:
        """Use `Room.admit`."""
        self._room = room
        self._end = end
        self.source = source
        self.has_left = False

    def wait(self) -> None:
        """It is the peer's turn."""
        if not self.has_left:
            self._room.put_last(self)

    def work(self) -> None:
        """It is ours."""
        self._room.keep(self)

    def leave(self) -> None:
        """The connection is over."""
        if not self.has_left:
            self.has_left = True
            self._room.free(self)

    def lose(self) -> None:
        """The place goes to somebody else, and the descriptor at once."""
        self.leave()
        self._end()


class Room:
    """All places."""

    def __init__(self, most: int, most_each: int, exempt: Iterable[str] = ()) -> None:
        """Make an empty one.

        Args:
            most: places in all.
            most_each: of one source.
            exempt: addresses for which only `most` counts: proxies that stand for many.
        """
        self.most = most
        self.most_each = min(most, most_each)
        self.taken = 0
        self.evicted = 0
        self._exempt = frozenset(source_of(host) for host in exempt)
        self._taken_by: Counter[str] = Counter()
        # Who waits, of all and of each source, those first who began first: a dict keeps order and forgets fast.
        self._waiting: dict[Place, None] = {}
        self._waiting_of: dict[str, dict[Place, None]] = {}

    @property
    def waiting(self) -> int:
        """Connections that wait for their peer."""
        return len(self._waiting)

    def admit(self, host: str, end: Callable[[], None]) -> Place | None:
        """A place for a connection of this address, or None.

        Args:
            host: address of the peer.
            end: closes the connection's descriptor at once; called when the place goes to somebody else.
        """
        source = source_of(host)
        if source not in self._exempt and self._taken_by[source] >= self.most_each:
            if not self._evict(self._waiting_of.get(source, {})):
                return None
        elif self.taken >= self.most and not self.evict():
            return None
        place = Place(self, source, end)
        self.taken += 1
        self._taken_by[source] += 1
        place.wait()
        return place

    def evict(self) -> bool:
        """Throw out the one that has waited longest; whether there was one."""
        return self._evict(self._waiting)

    def _evict(self, waiting: dict[Place, None]) -> bool:
        place = next(iter(waiting), None)
        if place is None:
            return False
        self.evicted += 1
        place.lose()
        return True

    def put_last(self, place: Place) -> None:
        """It waits, from now."""
        self.keep(place)
        self._waiting[place] = None
        self._waiting_of.setdefault(place.source, {})[place] = None

    def keep(self, place: Place) -> None:
        """It does not wait."""
        if place in self._waiting:
            del self._waiting[place]
            of_source = self._waiting_of[place.source]
            del of_source[place]
            if not of_source:
                del self._waiting_of[place.source]

    def free(self, place: Place) -> None:
        """It is gone."""
        self.keep(place)
        self.taken -= 1
        self._taken_by[place.source] -= 1
        if not self._taken_by[place.source]:
            del self._taken_by[place.source]

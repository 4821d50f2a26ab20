"""What ICMP told us about paths that take smaller packets than the tunnel: for datagrams and echo.

TCP keeps what it learns in the connection. Nothing here is believed below the least MTU that a path must have, and all
of it is forgotten after ten minutes.

Source: RFC 1191, RFC 8201, RFC 5927 section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.netstack.constants import MINIMUM_MTU_IPV4, MINIMUM_MTU_IPV6, PATH_MTU_AGE, PATH_MTUS_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PathMtus"]


class PathMtus:
    """Destination to greatest packet."""

    def __init__(self, link_mtu: Callable[[], int]) -> None:
        """Know nothing yet.

        Args:
            link_mtu: the MTU of the tunnel at present.
        """
        self._link_mtu = link_mtu
        self._learnt: dict[bytes, tuple[int, float]] = {}

    def get(self, destination: bytes, now: float) -> int:
        """Greatest packet for a destination, 4 or 16 octets."""
        mtu = self._link_mtu()
        learnt = self._learnt.get(destination)
        if learnt is None:
            return mtu
        if learnt[1] <= now:
            del self._learnt[destination]
            return mtu
        return min(mtu, learnt[0])

    def learn(self, destination: bytes, mtu: int, now: float) -> bool:
        """Believe a router, if it tells something new; an MTU of 0 is that of a router older than RFC 1191."""
        least = MINIMUM_MTU_IPV4 if len(destination) == 4 else MINIMUM_MTU_IPV6
        mtu = mtu or least
        if not least <= mtu < self.get(destination, now):
            return False
        self._learnt.pop(destination, None)
        if len(self._learnt) >= PATH_MTUS_KEPT:
            del self._learnt[next(iter(self._learnt))]
        self._learnt[destination] = mtu, now + PATH_MTU_AGE
        return True

"""A realm: one AllowedIPs table and one packet door. Each peer belongs to exactly one, so addresses may overlap.

Nearly every interface has one realm, and need not know. A hub of many private networks has one for each: the same inner
address then names different peers, and no packet crosses, because the table of the receiving peer's own realm decides
where it may come from, and the table of the sending door's realm where it may go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.protocol.allowedips import AllowedIPs

if TYPE_CHECKING:
    from wgpy.dataplane.slab import Slab
    from wgpy.protocol.peer import Peer

__all__ = ["Realm"]


class Realm:
    """Where a packet may go to and come from.

    Attributes:
        allowed_ips: of the peers in it.
        inbox: packets that wait for its door, in order.
    """

    __slots__ = ("allowed_ips", "inbox")

    def __init__(self) -> None:
        """Start without peers."""
        self.allowed_ips: AllowedIPs[Peer] = AllowedIPs()
        self.inbox: list[Slab] = []

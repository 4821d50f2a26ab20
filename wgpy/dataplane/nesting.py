"""A tunnel inside a tunnel, and one that is routed into itself: how far a datagram within a datagram may still go.

A datagram of ours that the routes lead back into the tunnel is wrapped again, and again, and grows each time. Nothing
in it says so, once another tunnel lies between. So what was wrapped once hands its hop limit on, some hops shorter each
time, as if the tunnel were as many routers: a few tunnels inside each other work, and a loop ends after a few rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wgpy.constants import MESSAGE_TRANSPORT, NESTED_HOPS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD

if TYPE_CHECKING:
    from wgpy.dataplane.slab import Slab

__all__ = ["NO_HOPS_LEFT", "hop_limit_of_nested"]

NO_HOPS_LEFT: Final = -1
_UDP, _FRAGMENT = 17, 44
_UDP_SIZE: Final = 8
_SMALLEST_UDP: Final = _UDP_SIZE + TRANSPORT_OVERHEAD
_TRANSPORT_HEAD: Final = MESSAGE_TRANSPORT.to_bytes(4, "little")
_SMALLEST: Final = 20 + _SMALLEST_UDP


def hop_limit_of_nested(slab: Slab) -> int:
    """The hop limit for the outer headers of a slab, told by its first packet.

    Args:
        slab: unsealed; its packets have been checked to be whole.

    Returns:
        0 for whatever the system gives, as everything but transport data in UDP gets; `NO_HOPS_LEFT` for what was
        wrapped too often.
    """
    if slab.length < _SMALLEST:
        return 0
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE
    if view[at] == 0x45:
        if view[at + 9] != _UDP:
            return 0
        hops, payload = view[at + 8], at + 20 + _UDP_SIZE
        if view[at + 6] & 0x1F or view[at + 7]:
            return 0  # a later fragment, without the header
    elif view[at] >> 4 == 6:
        header, payload = view[at + 6], at + 40 + _UDP_SIZE
        if header == _FRAGMENT and not view[at + 42] and view[at + 43] < 8:  # the first one
            header, payload = view[at + 40], payload + 8
        if header != _UDP:
            return 0
        hops = view[at + 7]
    else:
        return 0
    if view[payload : payload + 4] != _TRANSPORT_HEAD or (view[payload - 4] << 8 | view[payload - 3]) < _SMALLEST_UDP:
        return 0
    return hops - NESTED_HOPS if hops > NESTED_HOPS else NO_HOPS_LEFT

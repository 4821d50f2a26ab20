"""The door for inner packets. TUN device and userspace stack stand behind the same one.

Both directions carry slabs: what comes out of `read_batch` is laid out as the datagrams it will become, what goes into
`write_batch` are the rows that `dataplane/inner` grouped. Only `wait_readable` is asynchronous, for only there somebody
waits; the rest happens at once and never blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from wgpy.dataplane.slab import Slab
from wgpy.errors import DropReason

__all__ = ["PacketDevice"]


class PacketDevice(Protocol):
    """Where inner packets come from and go to.

    Attributes:
        name: what people call the interface.
        mtu: greatest inner packet; padding never goes beyond it. The owner sets it when the link's MTU changes.
        drops: packets refused by the device or for its sake, by reason; only ever grows.
        descriptor: readable whenever `read_batch` has something to give; None if only `wait_readable` knows.

    Example:
        >>> packets: wgpy.PacketDevice = wgpy.MemoryDevice("demo", mtu=1280)
        >>> packets.mtu
        1280
    """

    name: str
    mtu: int
    drops: Counter[DropReason]

    @property
    def descriptor(self) -> int | None:
        """See above."""
        ...

    async def wait_readable(self) -> None:
        """Return when `read_batch` has something to give; a checkpoint.

        Raises:
            TunnelClosed: the device was closed or deleted meanwhile.
        """
        ...

    def read_batch(self) -> list[Slab]:
        """Take what waits, up to a bound; an empty list when nothing does.

        The rows of one slab have one destination address and one TOS octet. The slabs are valid until the next call.

        Raises:
            TunnelClosed: the device was closed or deleted.
        """
        ...

    def write_batch(self, slabs: Sequence[Slab]) -> None:
        """Hand over inner packets in order: rows of one slab have one source address and one true length.

        What the device cannot take is counted in `drops`. The slabs may be reused after the call; their header octets
        and the room around their rows may have been written to.

        Raises:
            TunnelClosed: the device was closed or deleted.
        """
        ...

    def close(self) -> None:
        """Give the device up; whoever waits gets TunnelClosed. Closing twice is no error."""
        ...

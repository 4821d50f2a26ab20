"""Transport data in bulk: slabs to datagrams and back, in place.

Out: counters into the headroom, seal every row, receiver index into the headroom. In: cut what was received into runs
of one receiver index, read the counters, open every row. Which key, which counters and whether a counter is new are
decided elsewhere.

Source: WireGuard whitepaper, section 5.4.6.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from wgpy.constants import MESSAGE_TRANSPORT, TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.selected import rows as selected
from wgpy.dataplane.slab import Slab
from wgpy.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wgpy.crypto.aead import TransportCipher
    from wgpy.dataplane.slab import Arena

__all__ = ["Run", "open_lone", "open_slabs", "runs_untrusted", "seal_lone", "seal_slabs"]

_HEADER: Final = struct.Struct("<IIQ")
_INDEX: Final = struct.Struct("<I")
_HEAD_SIZE: Final = 8
_HEAD_OF_TRANSPORT: Final = MESSAGE_TRANSPORT.to_bytes(4, "little")


class Run:
    """Datagrams of one batch, next to each other, that begin with the same eight octets.

    Attributes:
        head: those octets: type, reserved bytes and, for transport data, the receiver index. Shorter for a short
            datagram.
        slab: the rows, if these are datagrams of transport data of sufficient length; else None.
    """

    __slots__ = ("_arena", "_count", "_last_size", "_size", "_start", "head", "slab")

    def __init__(self, arena: Arena, start: int, size: int, count: int, last_size: int) -> None:
        """Name the datagrams: `count` of `size` octets each, the last of `last_size`."""
        self._arena = arena
        self._start = start
        self._size = size
        self._count = count
        self._last_size = last_size
        self.head = bytes(arena.view[start : start + min(_HEAD_SIZE, size if count > 1 else last_size)])
        self.slab: Slab | None = None
        if last_size >= TRANSPORT_OVERHEAD and self.head[:4] == _HEAD_OF_TRANSPORT:
            length = size - TRANSPORT_OVERHEAD
            self.slab = Slab(arena, start, size, count, length, last_size - TRANSPORT_OVERHEAD, is_sealed=True)

    def __iter__(self) -> Iterator[memoryview]:
        """Each datagram."""
        at, view = self._start, self._arena.view
        for _ in range(self._count - 1):
            yield view[at : at + self._size]
            at += self._size
        yield view[at : at + self._last_size]


def runs_untrusted(arena: Arena, start: int, length: int, segment_size: int, rows: Rows = selected) -> Sequence[Run]:
    """Cut received datagrams into runs with the same first eight octets, in order.

    Args:
        arena: where they lie.
        start: offset of the first.
        length: octets of all together.
        segment_size: octets of each but the last.
        rows: the row functions to use.
    """
    if segment_size <= 0 or length <= segment_size:
        return (Run(arena, start, length, 1, length),)
    full, rest = divmod(length, segment_size)
    if segment_size < TRANSPORT_OVERHEAD:
        # None of them can be transport data, and the last may be too short for a head.
        sizes = [min(segment_size, length - at) for at in range(0, length, segment_size)]
        return [Run(arena, start + row * segment_size, size, 1, size) for row, size in enumerate(sizes)]
    # A short last datagram belongs to the run when it is long enough to be what the others are.
    count = full + (rest >= TRANSPORT_OVERHEAD)
    last = rest if count > full else segment_size
    runs: list[Run] = []
    first = 0
    while first < count:
        same = rows.count_same_heads(arena, start + first * segment_size, segment_size, count - first)
        is_last = first + same == count
        runs.append(Run(arena, start + first * segment_size, segment_size, same, last if is_last else segment_size))
        first += same
    if rest and count == full:
        runs.append(Run(arena, start + full * segment_size, rest, 1, rest))
    return runs


def seal_slabs(
    slabs: Sequence[Slab], cipher: TransportCipher, *, receiver_index: int, first_counter: int, rows: Rows = selected
) -> None:
    """Turn each row of the slabs into one transport data message, in place.

    Args:
        slabs: rows of 16 octets headroom, a padded inner packet, 16 octets tailroom; sealed once only.
        cipher: the sending key.
        receiver_index: the peer's index for this keypair, 32 bits.
        first_counter: counter of the first row; it runs on from slab to slab, all reserved by the caller.
        rows: the row functions to use.

    Raises:
        LocalProtocolError: a slab was sealed before.

    Source: WireGuard whitepaper, sections 5.4.6 and 6.1.
    """
    for slab in slabs:
        if slab.is_sealed:
            raise LocalProtocolError(f"{slab} was sealed before: a second time would use its buffer for other octets")
        slab.is_sealed = True
    rows.write_counters(slabs, first_counter)
    for slab in slabs:
        nonces, packets, sealed = slab.views()
        cipher.seal_rows(nonces, packets, sealed)
    rows.write_index(slabs, receiver_index)


def open_slabs(slabs: Sequence[Slab], cipher: TransportCipher, rows: Rows = selected) -> tuple[list[int], list[int]]:
    """Open each row in place; one that does not authenticate is zeroed and costs itself only.

    Args:
        slabs: rows as received, all for one keypair.
        cipher: the receiving key.
        rows: the row functions to use.

    Returns:
        The counter of every row, and the rows whose tag is wrong; rows are numbered on from slab to slab.

    Source: WireGuard whitepaper, section 5.4.6.
    """
    counters = rows.read_counters(slabs)
    failed: list[int] = []
    before = 0
    for slab in slabs:
        nonces, packets, sealed = slab.views()
        slab.is_sealed = False
        wrong = cipher.open_rows(nonces, sealed, packets)
        if wrong:
            failed += [before + row for row in wrong]
        before += slab.count
    return counters, failed


# --- one row ---------------------------------------------------------------------------------------------------------
#
# What a round trip takes is what a lone packet takes, and half of that would be the price of being a batch.


def seal_lone(slab: Slab, cipher: TransportCipher, *, receiver_index: int, counter: int) -> None:
    """`seal_slabs` with one slab of one row.

    Raises:
        LocalProtocolError: the slab was sealed before.
    """
    if slab.is_sealed:
        raise LocalProtocolError(f"{slab} was sealed before: a second time would use its buffer for other octets")
    slab.is_sealed = True
    view, at = slab.arena.view, slab.start
    _HEADER.pack_into(view, at, MESSAGE_TRANSPORT, 0, counter)
    first = at + TRANSPORT_HEADER_SIZE
    end = first + slab.length
    cipher.seal_row(view[at + 4 : first], view[first:end], view[first : end + TAG_SIZE])
    _INDEX.pack_into(view, at + 4, receiver_index)


def open_lone(view: memoryview, at: int, length: int, cipher: TransportCipher) -> int | None:
    """`open_slabs` with one datagram of transport data.

    Args:
        view: of the arena that it lies in.
        at: where it begins.
        length: octets of the datagram, at least 32.
        cipher: the receiving key.

    Returns:
        Its counter; None when its tag is wrong, the packet zeroed.
    """
    _, _, counter = _HEADER.unpack_from(view, at)
    _INDEX.pack_into(view, at + 4, 0)
    first = at + TRANSPORT_HEADER_SIZE
    end = at + length
    is_authentic = cipher.open_row(view[at + 4 : first], view[first:end], view[first : end - TAG_SIZE])
    return counter if is_authentic else None

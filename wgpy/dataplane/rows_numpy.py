"""The functions of `rows` with numpy: one call over all rows of all slabs that lie at equal distances.

numpy calls cost three to four times more between system calls than in a loop of their own, because the caches are cold:
so their number is what counts, and a batch of several superpackets is worked on as one grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from wgpy.constants import MESSAGE_TRANSPORT, TRANSPORT_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wgpy.dataplane.slab import Arena, Slab

__all__ = ["count_same_heads", "is_one_flow", "read_counters", "write_counters", "write_index"]

_U8: Final = np.dtype("<u8")
_U4: Final = np.dtype("<u4")
_U2: Final = np.dtype("<u2")


class _Grid(NamedTuple):
    """Rows of several slabs of one shape at equal distances."""

    view: memoryview
    start: int
    shape: tuple[int, int]
    strides: tuple[int, int]

    def column(self, kind: np.dtype[np.unsignedinteger], offset: int) -> NDArray[np.unsignedinteger]:
        """One field of every row."""
        return np.ndarray(self.shape, kind, self.view, self.start + offset, self.strides)


def _grids(slabs: Sequence[Slab]) -> Iterator[_Grid]:
    """Cut the slabs into as few grids as their places allow, in order."""
    first, groups, step = slabs[0], 1, 0
    previous = first
    for slab in slabs[1:]:
        distance = slab.start - previous.start
        if (
            slab.arena is first.arena
            and slab.stride == first.stride
            and slab.count == first.count
            and (distance == step or groups == 1)
            and distance > 0
        ):
            step = distance
            groups += 1
        else:
            yield _Grid(first.arena.view, first.start, (groups, first.count), (step, first.stride))
            first, groups, step = slab, 1, 0
        previous = slab
    yield _Grid(first.arena.view, first.start, (groups, first.count), (step, first.stride))


# --- sealing and opening ---------------------------------------------------------------------------------------------


def write_counters(slabs: Sequence[Slab], first_counter: int) -> None:
    """As `rows.write_counters`."""
    counter = first_counter
    for grid in _grids(slabs):
        total = grid.shape[0] * grid.shape[1]
        grid.column(_U8, 0)[...] = MESSAGE_TRANSPORT
        numbers = np.arange(total, dtype=_U8)
        numbers += np.uint64(counter)
        grid.column(_U8, 8)[...] = numbers.reshape(grid.shape)
        counter += total


def write_index(slabs: Sequence[Slab], receiver_index: int) -> None:
    """As `rows.write_index`."""
    for grid in _grids(slabs):
        grid.column(_U4, 4)[...] = receiver_index


def read_counters(slabs: Sequence[Slab]) -> list[int]:
    """As `rows.read_counters`."""
    counters: list[int] = []
    for grid in _grids(slabs):
        counters += grid.column(_U8, 8).ravel().tolist()
        grid.column(_U4, 4)[...] = 0
    return counters


def count_same_heads(arena: Arena, start: int, stride: int, count: int) -> int:
    """As `rows.count_same_heads`."""
    heads = np.ndarray((count,), _U8, arena.view, start, (stride,))
    # As octets: a comparison of arrays and its reduction cost twice as much.
    if heads.tobytes() == bytes(arena.view[start : start + 8]) * count:
        return count
    return int((heads != heads[0]).argmax())


# --- inner packets ---------------------------------------------------------------------------------------------------


def is_one_flow(slab: Slab) -> bool:
    """As `rows.is_one_flow`."""
    view, at, stride = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE, slab.stride
    count = slab.count
    if view[at] >> 4 == 4:
        source = np.ndarray((count,), _U4, view, at + 12, (stride,)).tobytes()
        if source != bytes(view[at + 12 : at + 16]) * count:
            return False
        # One word holds version, header length, traffic class and total length. The traffic class may differ: rare
        # enough to be found out by the slow comparison.
        words = np.ndarray((count - 1,), _U4, view, at, (stride,))
        if words.tobytes() != bytes(view[at : at + 4]) * (count - 1) and ((words ^ words[0]) & 0xFFFF00FF).any():
            return False
    else:
        for offset in (8, 16):
            half = np.ndarray((count,), _U8, view, at + offset, (stride,)).tobytes()
            if half != bytes(view[at + offset : at + offset + 8]) * count:
                return False
        lengths = np.ndarray((count - 1,), _U2, view, at + 4, (stride,))
        if lengths.tobytes() != bytes(view[at + 4 : at + 6]) * (count - 1):
            return False
        versions = np.ndarray((count - 1,), np.uint8, view, at, (stride,))
        if versions.tobytes() != bytes(view[at : at + 1]) * (count - 1):
            return False
    last = at + (count - 1) * stride
    return view[last] >> 4 == view[at] >> 4

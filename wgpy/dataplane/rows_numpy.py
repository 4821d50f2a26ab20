"""The functions of `rows` with numpy: one call over all rows of all slabs that lie at equal distances.

numpy calls cost three to four times more between system calls than in a loop of their own, because the caches are cold:
so their number is what counts, and a batch of several superpackets is worked on as one grid.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from wgpy.constants import MESSAGE_TRANSPORT, TRANSPORT_HEADER_SIZE
from wgpy.dataplane import rows as plain
from wgpy.dataplane.rows import ADDRESSES_AT, PROTOCOL, PSH
from wgpy.wire.ip import IPV4_HEADER_SIZE
from wgpy.wire.virtio import TCP_CSUM_OFFSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wgpy.dataplane.slab import Arena, Buffer, Slab
    from wgpy.wire.virtio import Offload

__all__ = [
    "clear_padding",
    "count_same_heads",
    "find_runs",
    "is_one_flow",
    "read_counters",
    "write_counters",
    "write_index",
    "write_payloads",
    "write_segments",
]

_U8: Final = np.dtype("<u8")
_U4: Final = np.dtype("<u4")
_U2: Final = np.dtype("<u2")
_U1: Final = np.dtype("u1")
_U4_NETWORK: Final = np.dtype(">u4")
_U2_NETWORK: Final = np.dtype(">u2")
_MODULUS: Final = np.uint64(0xFFFF)
# So few rows get their counters sooner one by one: a lone packet must not pay for numpy.
_FEW: Final = 24


class _Grid(NamedTuple):
    """Rows of several slabs of one shape at equal distances."""

    slabs: Sequence[Slab]
    view: memoryview
    start: int
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def rows(self) -> int:
        """How many of all slabs together."""
        return self.shape[0] * self.shape[1]

    def column(self, kind: np.dtype[np.unsignedinteger], offset: int) -> NDArray[np.unsignedinteger]:
        """One field of every row."""
        return np.ndarray(self.shape, kind, self.view, self.start + offset, self.strides)


def _grids(slabs: Sequence[Slab]) -> Iterator[_Grid]:
    """Cut the slabs into as few grids as their places allow, in order."""
    first, groups, step = slabs[0], 1, 0
    previous = first
    for place, slab in enumerate(slabs[1:], 1):
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
            yield _grid(slabs[place - groups : place], step)
            first, groups, step = slab, 1, 0
        previous = slab
    yield _grid(slabs[len(slabs) - groups :], step)


def _grid(slabs: Sequence[Slab], step: int) -> _Grid:
    first = slabs[0]
    return _Grid(slabs, first.arena.view, first.start, (len(slabs), first.count), (step, first.stride))


# --- sealing and opening ---------------------------------------------------------------------------------------------


def write_counters(slabs: Sequence[Slab], first_counter: int) -> None:
    """As `rows.write_counters`."""
    counter = first_counter
    for grid in _grids(slabs):
        if grid.rows <= _FEW:
            plain.write_counters(grid.slabs, counter)
        else:
            grid.column(_U8, 0)[...] = MESSAGE_TRANSPORT
            numbers = np.arange(grid.rows, dtype=_U8)
            numbers += np.uint64(counter)
            grid.column(_U8, 8)[...] = numbers.reshape(grid.shape)
        counter += grid.rows


def write_index(slabs: Sequence[Slab], receiver_index: int) -> None:
    """As `rows.write_index`."""
    for grid in _grids(slabs):
        if grid.rows <= _FEW:
            plain.write_index(grid.slabs, receiver_index)
        else:
            grid.column(_U4, 4)[...] = receiver_index


def read_counters(slabs: Sequence[Slab]) -> list[int]:
    """As `rows.read_counters`."""
    counters: list[int] = []
    for grid in _grids(slabs):
        if grid.rows <= _FEW:
            counters += plain.read_counters(grid.slabs)
        else:
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


# --- superpackets ----------------------------------------------------------------------------------------------------


def clear_padding(slab: Slab, length: int) -> None:
    """As `rows.clear_padding`."""
    shape = (slab.count - 1, slab.length - length)
    at = slab.start + TRANSPORT_HEADER_SIZE + length
    np.ndarray(shape, _U1, slab.arena.view, at, (slab.stride, 1))[...] = 0


def write_payloads(slab: Slab, header_length: int, payload: int, octets: Buffer) -> None:
    """As `rows.write_payloads`."""
    view, at = slab.arena.view, slab.start + TRANSPORT_HEADER_SIZE + header_length
    full = len(octets) // payload
    if full:
        source = np.ndarray((full, payload), _U1, octets)
        np.ndarray((full, payload), _U1, view, at, (slab.stride, 1))[...] = source
    rest = len(octets) - full * payload
    if rest:
        at += full * slab.stride
        view[at : at + rest] = memoryview(octets)[full * payload :]


def write_segments(
    slabs: Sequence[Slab], offload: Offload, sums: Sequence[int], last_flags: Sequence[int], *, counts_ids: bool
) -> None:
    """As `rows.write_segments`."""
    header_length, start, payload = offload.header_length, offload.csum_start, offload.gso_size
    length = header_length + payload
    first_slab = 0
    for grid in _grids(slabs):
        groups, count = grid.shape
        row = grid.start + TRANSPORT_HEADER_SIZE
        headers = np.ndarray((groups, count, header_length // 4), _U4, grid.view, row, (*grid.strides, 4))
        headers[:, 1:] = headers[:, :1]
        steps = np.arange(count, dtype=np.uint32)
        if counts_ids:
            _count_identifications(grid, start, steps)
        if not offload.is_udp:
            sequences = grid.column(_U4_NETWORK, TRANSPORT_HEADER_SIZE + start + 4)
            sequences[...] = sequences[:, :1].astype(np.uint32) + steps * np.uint32(payload)
            flags = grid.column(_U1, TRANSPORT_HEADER_SIZE + start + 13)
            flags[:, -1] = last_flags[first_slab : first_slab + groups]
        residues = _residues(grid, start, length)
        residues += np.array([[_swapped(pseudo)] for pseudo in sums[first_slab : first_slab + groups]], _U8)
        residues %= _MODULUS
        np.subtract(_MODULUS, residues, out=residues)
        if not offload.is_udp:
            # RFC 768 wants all ones where the sum says zero; TCP the zero.
            residues %= _MODULUS
        grid.column(_U2, TRANSPORT_HEADER_SIZE + start + offload.csum_offset)[...] = residues
        first_slab += groups


def find_runs(slabs: Sequence[Slab], offload: Offload) -> list[list[tuple[int, bool]]]:
    """As `rows.find_runs`."""
    found: list[list[tuple[int, bool]]] = []
    for grid in _grids(slabs):
        found += _runs_of(grid, offload)
    return found


def _runs_of(grid: _Grid, offload: Offload) -> Iterator[list[tuple[int, bool]]]:
    header_length, start = offload.header_length, offload.csum_start
    groups, count = grid.shape
    first = TRANSPORT_HEADER_SIZE
    words = np.ndarray((groups, count, header_length // 4), _U4, grid.view, grid.start + first, (*grid.strides, 4))
    words = words & _mask(start, header_length, offload.csum_offset)
    is_whole = _alike(words, groups, count)
    if not offload.is_udp:
        sequences = grid.column(_U4_NETWORK, first + start + 4).astype(np.uint32)
        sequences -= np.arange(count, dtype=np.uint32) * np.uint32(offload.gso_size)
        pushes = grid.column(_U1, first + start + 13)[:, :-1] & PSH
        pushed = pushes.tobytes()
        is_whole = _both(is_whole, _alike(sequences, groups, count))
        if pushed.strip(b"\0"):
            is_whole = _both(
                is_whole, [not pushed[at : at + count - 1].strip(b"\0") for at in _steps(groups, count - 1)]
            )
    damage = _residues(grid, ADDRESSES_AT[start], header_length + offload.gso_size)
    damage += np.uint64(_swapped(PROTOCOL[offload.is_udp] + header_length - start + offload.gso_size))
    damage %= _MODULUS
    if start == IPV4_HEADER_SIZE:
        damage += _residues(grid, 0, start) % _MODULUS
    is_intact = not damage.any()
    for group in range(groups):
        if is_whole[group]:
            yield [(0, is_intact or not damage[group].any())]
            continue
        is_cut = (words[group, 1:] != words[group, :-1]).any(axis=1)
        if not offload.is_udp:
            is_cut |= sequences[group, 1:] != sequences[group, :-1]
            is_cut |= pushes[group] != 0
        firsts = [0, *(is_cut.nonzero()[0] + 1).tolist()]
        if is_intact:
            yield [(row, True) for row in firsts]
        else:
            harmed = np.add.reduceat(damage[group], firsts).tolist()
            yield [(row, not harm) for row, harm in zip(firsts, harmed, strict=True)]


def _steps(groups: int, size: int) -> range:
    return range(0, groups * size, size) if size else range(0)


def _alike(columns: NDArray[np.unsignedinteger], groups: int, count: int) -> list[bool]:
    """For each group, whether all its rows are the same. As octets: comparing arrays costs twice as much."""
    octets = columns.tobytes()
    size = len(octets) // groups
    width = size // count
    return [octets[at : at + size] == octets[at : at + width] * count for at in range(0, len(octets), size)]


def _both(one: list[bool], other: list[bool]) -> list[bool]:
    return [a and b for a, b in zip(one, other, strict=True)]


def _residues(grid: _Grid, first: int, end: int) -> NDArray[np.uint64]:
    """Sum of the little-endian 16-bit words of every row, from octet `first` of its packet to `end`, not yet folded."""
    words = (end - first) // 4
    at = grid.start + TRANSPORT_HEADER_SIZE + first
    sums = np.add.reduce(
        np.ndarray((*grid.shape, words), _U4, grid.view, at, (*grid.strides, 4)), axis=2, dtype=np.uint64
    )
    for place, octet in enumerate(range(at + 4 * words, grid.start + TRANSPORT_HEADER_SIZE + end)):
        column = np.ndarray(grid.shape, _U1, grid.view, octet, grid.strides)
        sums += column.astype(np.uint64) << np.uint64(8 * (place % 2))
    return cast("NDArray[np.uint64]", sums)


def _count_identifications(grid: _Grid, header_length: int, steps: NDArray[np.uint32]) -> None:
    identifications = grid.column(_U2_NETWORK, TRANSPORT_HEADER_SIZE + 4)
    identifications[...] = identifications[:, :1] + steps.astype(np.uint16)
    checksums = grid.column(_U2, TRANSPORT_HEADER_SIZE + 10)
    checksums[...] = 0
    checksums[...] = (_MODULUS - _residues(grid, 0, header_length) % _MODULUS) % _MODULUS


@functools.lru_cache(64)
def _mask(start: int, header_length: int, csum_offset: int) -> NDArray[np.uint32]:
    """Ones where the headers of one stream must agree; zeros where joining makes good what differs."""
    mask = bytearray(b"\xff" * header_length)
    if start == IPV4_HEADER_SIZE:
        mask[4:6] = mask[10:12] = bytes(2)
    if csum_offset == TCP_CSUM_OFFSET:
        mask[start + 4 : start + 8] = bytes(4)
        mask[start + 13] = 0xFF ^ PSH
    mask[start + csum_offset : start + csum_offset + 2] = bytes(2)
    return np.frombuffer(mask, _U4)


def _swapped(value: int) -> int:
    """A 16-bit sum in the other byte order: Internet checksums do not mind which one is used (RFC 1071 section 2)."""
    return (value & 0xFF) << 8 | value >> 8

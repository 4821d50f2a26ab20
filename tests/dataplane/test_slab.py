"""Slabs and arenas: where rows lie, and how long a packet is with its padding; B27."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.constants import TRANSPORT_OVERHEAD
from wgpy.dataplane.slab import Arena, Slab, padded_length


@given(st.integers(0, 70000), st.integers(576, 65503))
def test_b27_padding_by_the_formula_of_the_whitepaper(length: int, mtu: int) -> None:
    """Protocol notes 1.9: a multiple of 16, never beyond the MTU; above it as the last fragment would be padded."""
    added = padded_length(length, mtu) - length
    assert 0 <= added < 16
    within = length if length <= mtu else length % mtu
    assert within + added <= mtu
    assert (within + added) % 16 == 0 or within + added == mtu


def test_b27_the_examples() -> None:
    assert [padded_length(n, 1420) for n in (0, 1, 16, 17, 1408, 1409, 1419, 1420)] == [
        0, 16, 16, 32, 1408, 1420, 1420, 1420,
    ]  # fmt: skip


@given(st.binary(min_size=20, max_size=200))
def test_a_packet_becomes_one_row_of_padded_length(packet: bytes) -> None:
    slab = Slab.of_packet(packet, 1420)
    (row,) = slab
    assert bytes(row) == packet + bytes(-len(packet) % 16)
    assert slab.size == len(row) + TRANSPORT_OVERHEAD == len(slab.datagrams)
    assert not slab.is_sealed


def test_a_keepalive_is_an_empty_row_and_not_padded() -> None:
    slab = Slab.of_packet(b"", 1420)
    assert (slab.size, slab.octets, slab.traffic_class) == (32, 0, 0)


def slab_of(count: int, length: int, last: int) -> Slab:
    stride = length + TRANSPORT_OVERHEAD
    arena = Arena(count * stride + 5)
    for row in range(count):
        at = 5 + row * stride + 16
        arena.view[at : at + length] = bytes([row + 1]) * length
    return Slab(arena, 5, stride, count, length, last)


shapes = st.tuples(st.integers(1, 9), st.integers(16, 64), st.integers(0, 64)).map(
    lambda shape: (shape[0], shape[1], min(shape[1], shape[2]))
)


@given(shapes, st.data())
def test_a_part_has_the_same_rows(shape: tuple[int, int, int], data: st.DataObject) -> None:
    slab = slab_of(*shape)
    whole = [bytes(row) for row in slab]
    first = data.draw(st.integers(0, slab.count - 1))
    count = data.draw(st.integers(1, slab.count - first))
    part = slab.part(first, count)
    assert [bytes(row) for row in part] == whole[first : first + count]
    assert part.octets == sum(map(len, whole[first : first + count]))
    assert part.arena is slab.arena


@given(shapes)
def test_a_copy_has_the_same_datagrams_in_a_buffer_of_its_own(shape: tuple[int, int, int]) -> None:
    slab = slab_of(*shape)
    before = bytes(slab.datagrams)
    copy = slab.copy()
    slab.arena.view[:] = bytes(len(slab.arena.view))
    assert bytes(copy.datagrams) == before
    assert (copy.count, copy.length, copy.last_length) == (slab.count, slab.length, slab.last_length)


@given(shapes, st.integers(1, 9))
def test_views_are_the_rows_however_many_were_asked_for_before(shape: tuple[int, int, int], earlier: int) -> None:
    slab = slab_of(*shape)
    slab.arena.rows(slab.start, slab.stride, min(earlier, slab.count))
    nonces, packets, sealed = slab.views()
    assert [bytes(one) for one in packets] == [bytes(row) for row in slab]
    assert [len(one) for one in sealed] == [len(row) + 16 for row in slab]
    assert {len(one) for one in nonces} == {12}
    for row, nonce in enumerate(nonces):
        nonce[:] = bytes([row + 100]) * 12
        at = slab.start + row * slab.stride + 4
        assert slab.arena.view[at : at + 12] == nonce, "a view, not a copy"


def test_an_arena_forgets_shapes_that_are_never_the_same() -> None:
    arena = Arena(70_000)
    for start in range(1000):
        arena.rows(start, 64, 2)
        arena.payloads(start, 64, 20, 12, 2)
    assert len(arena._rows) <= 256
    assert len(arena._payloads) <= 256


@pytest.mark.parametrize("buffer", [b"read-only", memoryview(b"read-only")])
def test_what_is_read_only_is_copied(buffer: bytes) -> None:
    arena = Arena(buffer)
    arena.view[0] = 0
    assert bytes(buffer) == b"read-only"


def test_a_writable_buffer_is_not_copied() -> None:
    buffer = bytearray(4)
    Arena(buffer).view[0] = 7
    assert buffer[0] == 7


def test_a_repr_shows_the_shape_and_no_content() -> None:
    assert repr(slab_of(3, 16, 16)) == "<Slab 3 x 16 at 5, stride 48>"

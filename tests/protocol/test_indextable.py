"""Receiver indices: T12, T30, S11, S15."""

from __future__ import annotations

import random

from wgpy.protocol.indextable import IndexTable


def test_t12_an_index_that_is_taken_is_drawn_again() -> None:
    drawn = iter([b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0"])
    table: IndexTable[str] = IndexTable(lambda count: next(drawn))
    table.put(table.allocate(), "first")
    table.put(table.allocate(), "second")
    assert (table.lookup(b"\1\0\0\0"), table.lookup(b"\2\0\0\0")) == ("first", "second")


def test_s15_indices_are_what_the_random_source_says_never_sequential() -> None:
    octets = random.Random(3).randbytes(400)
    calls = iter(range(0, 400, 4))
    table: IndexTable[int] = IndexTable(lambda count: octets[(at := next(calls)) : at + count])
    made = [table.allocate() for _ in range(100)]
    assert made == [int.from_bytes(octets[at : at + 4], "little") for at in range(0, 400, 4)]


def test_s11_zero_is_as_random_as_any_other() -> None:
    table: IndexTable[str] = IndexTable(bytes)
    assert table.allocate() == 0
    table.put(0, "owner")
    assert table.lookup(bytes(4)) == "owner"


def test_t30_a_released_index_stands_for_nothing() -> None:
    table: IndexTable[str] = IndexTable(bytes)
    table.put(7, "owner")
    table.put(7, "heir")
    assert (len(table), table.lookup(b"\7\0\0\0")) == (1, "heir")
    table.release(7)
    table.release(7)
    assert (len(table), table.lookup(b"\7\0\0\0")) == (0, None)

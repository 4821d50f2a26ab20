"""Rows into transport data and back, against PyNaCl row by row; runs of one receiver index; T8, T12, T18, B73, S13."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as nacl_seal

from tests.property.rows import rows, rows_numpy
from wgpy.crypto.aead import TransportCipher
from wgpy.dataplane import transport
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Arena, Slab
from wgpy.errors import LocalProtocolError

BOTH = pytest.mark.parametrize("using", [rows, rows_numpy], ids=["plain", "numpy"])
KEY = bytes(range(32))
INDEX = 0x89ABCDEF


def outgoing(shapes: list[tuple[int, int, int]]) -> list[Slab]:
    slabs = []
    for number, (count, length, last) in enumerate(shapes):
        stride = length + 32
        arena = Arena(bytearray(n * 13 + number & 0xFF for n in range(count * stride)))
        slabs.append(Slab(arena, 0, stride, count, length, min(last, length)))
    return slabs


shapes = st.lists(
    st.tuples(st.integers(1, 8), st.sampled_from([0, 16, 48, 84, 1420]), st.sampled_from([0, 16, 1420])),
    min_size=1,
    max_size=4,
)


@BOTH
@given(shapes, st.integers(0, 2**64 - 2**14))
@settings(max_examples=40)
def test_every_row_is_the_datagram_of_the_whitepaper(
    using: Rows, shape: list[tuple[int, int, int]], first: int
) -> None:
    """5.4.6, sealed once more by PyNaCl: type, index, counter, no additional data."""
    slabs = outgoing(shape)
    plaintexts = [bytes(row) for slab in slabs for row in slab]
    transport.seal_slabs(slabs, TransportCipher(KEY), receiver_index=INDEX, first_counter=first, rows=using)
    datagrams = []
    for slab in slabs:
        octets = bytes(slab.datagrams)
        datagrams += [octets[at : at + slab.stride] for at in range(0, len(octets), slab.stride)]
    assert datagrams == [
        struct.pack("<IIQ", 4, INDEX, first + n)
        + nacl_seal(plaintext, b"", bytes(4) + struct.pack("<Q", first + n), KEY)
        for n, plaintext in enumerate(plaintexts)
    ]


def test_a_slab_is_sealed_once_only() -> None:
    slabs = outgoing([(2, 16, 16)])
    transport.seal_slabs(slabs, TransportCipher(KEY), receiver_index=INDEX, first_counter=0)
    before = bytes(slabs[0].datagrams)
    with pytest.raises(LocalProtocolError, match="sealed before"):
        transport.seal_slabs(slabs, TransportCipher(KEY), receiver_index=INDEX, first_counter=2)
    assert bytes(slabs[0].datagrams) == before


@BOTH
@given(shapes, st.sets(st.integers(0, 31), max_size=5), st.data())
@settings(max_examples=40)
def test_what_was_sealed_opens_in_place_and_a_forged_row_costs_itself(
    using: Rows, shape: list[tuple[int, int, int]], forged: set[int], data: st.DataObject
) -> None:
    slabs = outgoing(shape)
    plaintexts = [bytes(row) for slab in slabs for row in slab]
    forged = {row for row in forged if row < len(plaintexts)}
    transport.seal_slabs(slabs, TransportCipher(KEY), receiver_index=INDEX, first_counter=5)
    number = 0
    for slab in slabs:
        for row in range(slab.count):
            if number in forged:
                size = (slab.last_length if row == slab.count - 1 else slab.length) + 32
                # Anything but type and index, which are not authenticated by the cipher but looked at before it.
                at = slab.start + row * slab.stride + data.draw(st.integers(8, size - 1))
                slab.arena.view[at] ^= 1 << data.draw(st.integers(0, 7))
            number += 1
    counters, failed = transport.open_slabs(slabs, TransportCipher(KEY), using)
    assert failed == sorted(forged)
    assert [c for n, c in enumerate(counters) if n not in forged] == [
        5 + n for n in range(len(plaintexts)) if n not in forged
    ]
    opened = [bytes(row) for slab in slabs for row in slab]
    for n, plaintext in enumerate(plaintexts):
        assert opened[n] == (bytes(len(plaintext)) if n in forged else plaintext), "unverified plaintext is zeroed"


def datagram(head: bytes, size: int) -> bytes:
    return (head + bytes(n & 0xFF for n in range(size)))[:size]


HEADS = [
    b"\4\0\0\0AAAA", b"\4\0\0\0AAAA", b"\4\0\0\0AAAA", b"\4\0\0\0BBBB", b"\4\0\1\0AAAA", b"\1\0\0\0CCCC", b"\0" * 8,
]  # fmt: skip


@BOTH
@given(
    st.lists(st.sampled_from(HEADS), min_size=1, max_size=12),
    st.sampled_from([1, 3, 8, 31, 32, 33, 48, 148, 1452]),
    st.integers(0, 1452),
    st.integers(0, 7),
)
def test_runs_are_the_datagrams_in_order_cut_where_the_head_changes(
    using: Rows, heads: list[bytes], size: int, last: int, start: int
) -> None:
    """B73: a batch that mixes peers, types or lengths is split, never refused; whatever the octets."""
    datagrams = [datagram(head, size) for head in heads]
    datagrams[-1] = datagrams[-1][: min(last, size)]
    whole = b"".join(datagrams)
    if not datagrams[-1] and len(datagrams) > 1:
        datagrams.pop()
    arena = Arena(bytearray(start) + bytearray(whole))
    runs = list(transport.runs_untrusted(arena, start, len(whole), size, using))
    assert [bytes(one) for run in runs for one in run] == datagrams
    for run in runs:
        members = [bytes(one) for one in run]
        assert {one[:8] for one in members} == {run.head}
        is_transport = run.head[:4] == b"\4\0\0\0" and all(len(one) >= 32 for one in members)
        assert (run.slab is not None) == is_transport
        if run.slab is not None:
            assert run.slab.is_sealed
            assert run.slab.count == len(members)
            assert run.slab.size == sum(map(len, members))


def test_one_send_of_one_peer_is_one_run_with_its_short_last() -> None:
    datagrams = [datagram(HEADS[0], 1452)] * 44 + [datagram(HEADS[0], 60)]
    arena = Arena(bytearray(b"".join(datagrams)))
    (run,) = transport.runs_untrusted(arena, 0, len(arena.view), 1452)
    assert run.slab is not None
    assert (run.slab.count, run.slab.length, run.slab.last_length) == (45, 1420, 28)


def test_t18_a_keepalive_is_a_row_without_octets() -> None:
    arena = Arena(bytearray(datagram(HEADS[0], 32)))
    (run,) = transport.runs_untrusted(arena, 0, 32, 32)
    assert run.slab is not None
    assert run.slab.length == 0


@pytest.mark.parametrize("flipped", [16, 40, 95], ids=["first octet", "in the middle", "tag"])
def test_a_forged_lone_datagram_leaves_no_unverified_plaintext_behind(flipped: int) -> None:
    """Opening in place writes the plaintext before the tag is known."""
    slab = Slab.of_packet(b"E" + bytes(range(1, 64)), 1420)
    transport.seal_lone(slab, TransportCipher(KEY), receiver_index=INDEX, counter=7)
    octets = bytearray(slab.datagrams)
    octets[flipped] ^= 1
    assert transport.open_lone(memoryview(octets), 0, len(octets), TransportCipher(KEY)) is None
    assert octets[16:-16] == bytes(64)

"""Rows: runs of octets become the packets that a scalar sender would have sent."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.constants import TRANSPORT_OVERHEAD
from wgpy.dataplane import rows as plain
from wgpy.dataplane import selected
from wgpy.dataplane.inner import sort_rows
from wgpy.dataplane.slab import Arena, Slab
from wgpy.errors import LocalProtocolError
from wgpy.netstack.coalesce import Coalescer
from wgpy.netstack.emission import Emission, Headers
from wgpy.wire import tcp

HEADERS = {
    4: Headers(bytes((10, 0, 0, 1)), 1234, bytes((10, 0, 0, 2)), 80),
    6: Headers(bytes(15) + b"\1", 1234, bytes(15) + b"\2", 80),
}
BOTH = pytest.mark.parametrize("rows", [plain, selected.rows], ids=["plain", "selected"])


def _run(rows, version, sequence, octets, size, options, mtu=1420):
    headers = HEADERS[version]
    out = Emission(mtu, rows)
    out.begin(1000, mtu)
    flags = tcp.ACK | tcp.PSH | tcp.FIN
    out.segments(headers.first_row(sequence, 77, flags, 500, options, 2), headers.size, octets, size)
    return out.finish()


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((4, 6)),
    st.integers(0, 0xFFFFFFFF),
    st.integers(100, 1300),
    st.integers(2, 40),
    st.integers(0, 1299),
    st.booleans(),
)
def test_a_run_is_what_single_packets_would_be(rows, version, sequence, size, count, less, stamps):
    octets = bytes(number * 7 % 251 for number in range(size * count - less % size))
    options = tcp.encode_timestamps(5, 6) if stamps else b""
    (slab,) = _run(rows, version, sequence, octets, size, options)
    packets = [bytes(row) for group in sort_rows([slab], ()).groups for row in group.slab]
    assert len(packets) == count
    for number, packet in enumerate(packets):
        flags = tcp.ACK | (tcp.PSH | tcp.FIN if number == count - 1 else 0)
        part = octets[number * size : (number + 1) * size]
        assert packet == HEADERS[version].packet(sequence + number * size, 77, flags, 500, options, part, 2)


@BOTH
def test_padding_is_zero_in_a_buffer_used_before(rows):
    headers = HEADERS[4]
    out = Emission(1420, rows)
    for filler in (b"\xff", b"\x00"):
        out.begin(100, 1420)
        out.segments(headers.first_row(1, 1, tcp.ACK, 1, b"", 0), 20, filler * 2001, 1001)
        out.packet(headers.packet(1, 1, tcp.ACK, 1, b"", filler * 5))
        slabs = out.finish()
    for slab in slabs:
        for row in slab:
            assert not any(row[int.from_bytes(row[2:4]) :])


@BOTH
def test_what_was_cut_is_joined_again(rows):
    octets = bytes(number % 253 for number in range(40 * 1000))
    (slab,) = _run(rows, 4, 0xFFFFFF00, octets, 1000, tcp.encode_timestamps(1, 2))
    (group,) = sort_rows([slab], ()).groups
    # The last row carries FIN: it is looked at by itself.
    body = group.slab.part(0, group.slab.count - 1)
    coalescer = Coalescer(rows)
    assert coalescer.whole_slab(body)
    (arrival,) = coalescer.take()
    assert (arrival.count, arrival.size, arrival.octets()) == (39, 1000, octets[:39000])
    assert arrival.segment.sequence == 0xFFFFFF00


@BOTH
def test_a_damaged_row_spoils_only_the_quick_look(rows):
    (slab,) = _run(rows, 4, 1, bytes(5000), 1000, b"")
    slab.arena.view[slab.start + 2 * slab.stride + 100] ^= 1
    (group,) = sort_rows([slab], ()).groups
    assert not Coalescer(rows).whole_slab(group.slab.part(0, 4))


def test_small_packets_of_one_shape_share_a_slab():
    out = Emission(1420)
    out.begin(100, 1420)
    for number in range(5):
        out.packet(HEADERS[4].packet(number, 1, tcp.ACK, 1))
    out.packet(HEADERS[4].packet(9, 1, tcp.ACK, 1, b"", b"longer than before, so another row length"))
    out.packet(HEADERS[6].packet(9, 1, tcp.ACK, 1))
    assert [(slab.count, slab.length) for slab in out.finish()] == [(5, 48), (1, 96), (1, 64)]
    assert out.left == 93


@pytest.mark.parametrize("length", [1381, 2000])
def test_nothing_above_the_mtu_leaves(length):
    """Field bug 7: asserted at the border, always."""
    out = Emission(1420)
    out.begin(100, 1420)
    with pytest.raises(LocalProtocolError):
        out.packet(HEADERS[4].packet(1, 1, tcp.ACK, 1, b"", bytes(length)))
    with pytest.raises(LocalProtocolError):
        out.segments(HEADERS[4].first_row(1, 1, tcp.ACK, 1, b"", 0), 20, bytes(3 * length), length)


@BOTH
@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000])
def test_octets_are_dealt_out_to_rows(rows, size):
    stride = 40 + 100 + TRANSPORT_OVERHEAD
    slab = Slab(Arena(stride * 11), 0, stride, 11, 140)
    octets = bytes(number % 255 + 1 for number in range(size))
    rows.write_payloads(slab, 40, 100, octets)
    assert b"".join(bytes(row[40:140]) for row in slab).rstrip(b"\0") == octets
    assert not any(any(row[:40]) for row in slab)

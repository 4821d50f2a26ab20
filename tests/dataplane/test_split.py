"""Superpackets into packets, against the kernel's rules and scapy's checksums; protocol notes 4.2, B27, T19."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataplane import kernel
from tests.property.rows import rows, rows_numpy
from tests.property.strategies import ACK, CWR, ECE, FIN, PSH, TCP, UDP, PacketShape, packet_shapes
from wgpy.constants import MAX_SEGMENTS, MAX_UDP_PAYLOAD_IPV4, TRANSPORT_OVERHEAD
from wgpy.dataplane import split
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import padded_length
from wgpy.wire import ip
from wgpy.wire.virtio import offload_untrusted

BOTH = pytest.mark.parametrize("using", [rows, rows_numpy], ids=["plain", "numpy"])
MTU = 1420

sizes = st.integers(1, 1368)
joined = st.builds(
    lambda shape, size, count, rest: (shape.but(payload=octets(size * count + min(rest, size))), size),
    packet_shapes.filter(lambda shape: shape.protocol in (TCP, UDP)),
    sizes,
    st.integers(0, 45),
    st.integers(1, 1368),
).filter(lambda pair: pair[0].header_length + len(pair[0].payload) <= 65535)


def octets(length: int) -> bytes:
    return bytes(n * 31 + (n >> 8) & 0xFF for n in range(length))


def cut(shape: PacketShape, size: int, using: Rows, mtu: int = MTU) -> list[split.Superpacket]:
    header, packet = kernel.superpacket(shape, size)
    pieces = split.cut(memoryview(packet), offload_untrusted(header, packet), mtu)
    split.finish(pieces, using)
    return pieces


def packets_of(pieces: list[split.Superpacket]) -> list[bytes]:
    return [bytes(row)[: ip.true_length_untrusted(row)] for piece in pieces for row in piece.slab]


def expected_of(shape: PacketShape, size: int, actual: list[bytes]) -> list[bytes]:
    parts = kernel.segments(shape, size)
    if shape.version == 4 and shape.fragment & 0x4000:
        # RFC 6864: a packet that may not be fragmented may carry any identification.
        parts = [part.but(identification=int.from_bytes(one[4:6])) for part, one in zip(parts, actual, strict=True)]
    return [part.build() for part in parts]


@BOTH
@given(joined)
@settings(max_examples=100)
def test_every_row_is_the_segment_that_the_kernel_would_make(using: Rows, superpacket: tuple[PacketShape, int]) -> None:
    """Lengths, identification, sequence numbers, FIN and PSH, all three checksums; octet by octet."""
    shape, size = superpacket
    packets = packets_of(cut(shape, size, using))
    assert packets == expected_of(shape, size, packets)


@BOTH
@given(joined, st.sampled_from([1420, 1413, 9000, 65503]))
def test_b27_padding_is_zeros_and_ends_at_the_mtu(using: Rows, superpacket: tuple[PacketShape, int], mtu: int) -> None:
    shape, size = superpacket
    for piece in cut(shape, size, using, mtu):
        for row in piece.slab:
            length = ip.true_length_untrusted(row)
            assert len(row) == padded_length(length, mtu)
            assert not any(row[length:])


@BOTH
def test_b27_no_octet_of_an_earlier_packet_leaves_as_padding(using: Rows) -> None:
    """S14: the buffer was full of something else before."""
    shape, size = PacketShape(payload=bytes(1005 * 3 + 11), options=b"\1" * 12), 1005
    header, packet = kernel.superpacket(shape, size)
    offload = offload_untrusted(header, packet)
    (piece,) = split.cut(memoryview(packet), offload, MTU)
    view, length = piece.slab.arena.view, offload.header_length + size
    for row in piece.slab:
        true = length if len(row) == piece.slab.length else piece.last_length
        row[true:] = b"\xaa" * (len(row) - true)
    split.finish([piece], using)
    assert any(len(row) > ip.true_length_untrusted(row) for row in piece.slab)
    assert not any(any(row[ip.true_length_untrusted(row) :]) for row in piece.slab)
    assert len(view) == piece.slab.stride * 4


@BOTH
@given(st.lists(joined, min_size=1, max_size=5))
@settings(max_examples=30)
def test_superpackets_finished_together_are_as_if_alone(using: Rows, several: list[tuple[PacketShape, int]]) -> None:
    groups = []
    for shape, size in several:
        header, packet = kernel.superpacket(shape, size)
        groups.append(split.cut(memoryview(packet), offload_untrusted(header, packet), MTU))
    split.finish([piece for group in groups for piece in group], using)
    for group, (shape, size) in zip(groups, several, strict=True):
        packets = packets_of(group)
        assert packets == expected_of(shape, size, packets)


def test_a_tiny_segment_size_loses_nothing() -> None:
    """Protocol notes 4.2 rule 7: more segments than one send takes go into several slabs."""
    shape = PacketShape(payload=octets(500))
    pieces = cut(shape, 3, rows)
    assert len(pieces) > 1
    assert all(piece.slab.count <= MAX_SEGMENTS for piece in pieces)
    assert [piece.is_end for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    packets = packets_of(pieces)
    assert packets == expected_of(shape, 3, packets)


@BOTH
def test_fin_and_psh_belong_to_the_last_segment_only(using: Rows) -> None:
    flags = [
        kernel.parse(one).flags
        for one in packets_of(cut(PacketShape(payload=bytes(30), flags=ACK | FIN | PSH | ECE | CWR), 10, using))
    ]
    assert flags == [ACK | ECE | CWR, ACK | ECE | CWR, ACK | FIN | PSH | ECE | CWR]


@BOTH
def test_sequence_numbers_and_identifications_wrap(using: Rows) -> None:
    shape = PacketShape(payload=bytes(70_0), sequence=2**32 - 150, identification=65534, fragment=0)
    found = [kernel.parse(one) for one in packets_of(cut(shape, 100, using))]
    assert [one.sequence for one in found] == [(2**32 - 150 + 100 * n) % 2**32 for n in range(7)]
    assert [one.identification for one in found] == [65534, 65535, 0, 1, 2, 3, 4]


@BOTH
def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones(using: Rows) -> None:
    """RFC 768; searched for, because the checksum of every segment has to be the odd one out."""
    shape = PacketShape(protocol=UDP, fragment=0)
    whole = shape.but(payload=bytes(2))
    value = int.from_bytes(whole.build()[26:28])
    part = value.to_bytes(2)
    packets = packets_of(cut(shape.but(payload=part * 3), 2, using))
    assert [packet[26:28] for packet in packets] == [b"\xff\xff"] * 3
    assert packets == expected_of(shape.but(payload=part * 3), 2, packets)


@given(packet_shapes.filter(lambda shape: shape.protocol in (TCP, UDP)))
def test_an_unfinished_checksum_is_finished(shape: PacketShape) -> None:
    """Protocol notes 4.2 rule 2: what is left unfinished inside a tunnel is a silent black hole at its far end."""
    header, packet = kernel.superpacket(shape, 1)
    whole = bytearray(packet)
    finished = header[:1] + b"\0" + header[2:4] + b"\0\0" + header[6:]
    split.finish_checksum(memoryview(whole), offload_untrusted(finished, packet))
    assert bytes(whole) == shape.build()


@given(st.integers(TRANSPORT_OVERHEAD, 70000))
def test_a_slab_fits_into_one_grouped_send(stride: int) -> None:
    count = split.rows_per_slab(stride)
    assert 1 <= count <= MAX_SEGMENTS
    assert count == 1 or count * stride <= MAX_UDP_PAYLOAD_IPV4
    assert count == MAX_SEGMENTS or (count + 1) * stride > MAX_UDP_PAYLOAD_IPV4

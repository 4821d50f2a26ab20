"""`rows` is the reference: `rows_numpy` does the same, octet by octet, for any slabs; and both do what they say."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataplane import kernel
from tests.property.rows import HAS_NUMPY, rows, rows_numpy
from tests.property.strategies import ACK, PSH, TCP, UDP, PacketShape, packet_shapes, received
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Arena, Slab
from wgpy.wire.virtio import Offload

BOTH = pytest.mark.parametrize("using", [rows, rows_numpy], ids=["plain", "numpy"])
SEEDS = pytest.mark.parametrize("seed", range(25))


def test_both_modules_offer_the_same_functions() -> None:
    assert rows.__all__ == rows_numpy.__all__
    assert set(rows.__all__) == {name for name in vars(Rows) if not name.startswith("_")}


@pytest.mark.skipif(not HAS_NUMPY, reason="numpy is not installed")
def test_numpy_is_chosen_where_it_is_installed() -> None:
    from wgpy.dataplane.selected import rows as chosen

    assert chosen is rows_numpy


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, int, int, int, int]]:
    """Slabs of one arena as (start, stride, count, length, last_length): at equal distances, and not."""
    shapes, at = [], draw(st.integers(0, 20))
    stride, count = draw(st.integers(32, 120)), draw(st.integers(1, 6))
    for _ in range(draw(st.integers(1, 5))):
        if not draw(st.integers(0, 3)):
            stride, count = draw(st.integers(32, 120)), draw(st.integers(1, 6))
        length = stride - 32
        shapes.append((at, stride, count, length, draw(st.integers(0, length))))
        at += stride * count + draw(st.sampled_from([0, 0, 0, 8, 13]))
    return shapes


def twins(shapes: list[tuple[int, int, int, int, int]], seed: int) -> tuple[list[Slab], list[Slab]]:
    """The same slabs twice, each in an arena of its own full of the same noise."""
    size = max(start + stride * count for start, stride, count, _, _ in shapes) + 16
    noise = random.Random(seed).randbytes(size)
    made = []
    for _ in range(2):
        arena = Arena(bytearray(noise))
        made.append([Slab(arena, *shape) for shape in shapes])
    return made[0], made[1]


def content(slabs: list[Slab]) -> bytes:
    return bytes(slabs[0].arena.view)


@given(layouts(), st.integers(0, 2**64 - 2**16), st.integers(0, 9))
def test_write_counters(shapes: list[tuple[int, int, int, int, int]], first: int, seed: int) -> None:
    plain, fast = twins(shapes, seed)
    rows.write_counters(plain, first)
    rows_numpy.write_counters(fast, first)
    assert content(plain) == content(fast)
    counter = first
    for start, stride, count, _, _ in shapes:
        for row in range(count):
            at = start + row * stride
            assert content(plain)[at : at + 16] == struct.pack("<IIQ", 4, 0, counter)
            counter += 1


@given(layouts(), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_write_index_and_read_counters(shapes: list[tuple[int, int, int, int, int]], index: int, seed: int) -> None:
    plain, fast = twins(shapes, seed)
    rows.write_index(plain, index)
    rows_numpy.write_index(fast, index)
    assert content(plain) == content(fast)
    expected = [
        int.from_bytes(content(plain)[start + row * stride + 8 :][:8], "little")
        for start, stride, count, _, _ in shapes
        for row in range(count)
    ]
    assert rows.read_counters(plain) == rows_numpy.read_counters(fast) == expected
    assert content(plain) == content(fast), "the index is zeroed, so that octets 4 to 16 are the nonce"


@BOTH
@given(st.lists(st.sampled_from([b"a", b"a", b"a", b"b"]), min_size=1, max_size=12), st.integers(8, 50))
def test_count_same_heads(using: Rows, heads: list[bytes], stride: int) -> None:
    arena = Arena(bytearray(b"".join(head * 8 + bytes(stride - 8) for head in heads)))
    expected = next((row for row, head in enumerate(heads) if head != heads[0]), len(heads))
    assert using.count_same_heads(arena, 0, stride, len(heads)) == expected


@BOTH
@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4]), min_size=1, max_size=8), st.booleans(), st.integers(0, 40))
def test_is_one_flow(using: Rows, kinds: list[int], is_six: bool, cut: int) -> None:
    """0 as the first, 1 another source, 2 another length in its header, 3 another version, 4 other congestion bits."""
    packets = []
    for kind in [0, *kinds]:
        shape = PacketShape(payload=bytes(60), source=b"\x0a\0\0" + bytes([9 if kind == 1 else 1]), tos=3 * (kind == 4))
        packet = bytearray((shape.six() if is_six else shape).build())
        if kind == 2:
            packet[5 if is_six else 3] -= 1
        if kind == 3:
            packet[0] = packet[0] & 0x0F | 0x50
        packets.append(bytes(packet))
    last = packets[-1]
    packets[-1] = last[: len(last) - cut]
    # Of the last row only source and version count: it may be shorter.
    expected = not {1, 2, 3} & set(kinds[:-1]) and kinds[-1] not in (1, 3)
    assert using.is_one_flow(received(packets)) == expected


@given(layouts().filter(lambda shapes: all(shape[3] for shape in shapes)), st.data())
def test_clear_padding(shapes: list[tuple[int, int, int, int, int]], data: st.DataObject) -> None:
    plain, fast = twins(shapes, 1)
    before = content(plain)
    for one, other in zip(plain, fast, strict=True):
        length = data.draw(st.integers(0, one.length))
        rows.clear_padding(one, length)
        rows_numpy.clear_padding(other, length)
        for row in list(one)[:-1]:
            assert not any(row[length:])
        assert content(plain) == content(fast)
    last = plain[-1]
    at = last.start + (last.count - 1) * last.stride
    assert content(plain)[at : at + last.stride] == before[at : at + last.stride], "the last row is not its business"


@SEEDS
def test_write_segments(seed: int) -> None:
    """Several slabs of one shape, at equal and unequal distances, with and without identifications that count."""
    source = random.Random(seed)
    shape = PacketShape(
        protocol=source.choice([TCP, UDP]), options=b"\1" * source.choice([0, 12, 40]), tos=source.choice([0, 3]),
        sequence=source.getrandbits(32), identification=source.getrandbits(16), fragment=0,
    )  # fmt: skip
    if shape.protocol == UDP:
        shape = shape.but(options=b"")
    if source.random() < 0.4:
        shape = shape.six()
    payload, count, groups = source.choice([1, 2, 3, 100, 1001, 1368]), source.randint(1, 9), source.randint(1, 4)
    start = 20 if shape.version == 4 else 40
    offload = Offload(shape.header_length, payload, start, 6 if shape.protocol == UDP else 16, shape.protocol == UDP)
    length = shape.header_length + payload
    stride = length + 32 + source.choice([0, 5])
    shapes, at = [], 0
    for _ in range(groups):
        shapes.append((at, stride, count, stride - 32, length))
        at += stride * count + source.choice([0, 0, 64])
    plain, fast = twins(shapes, seed)
    counts_ids = shape.version == 4 and source.random() < 0.5
    sums, last_flags = [], []
    for number, (one, other) in enumerate(zip(plain, fast, strict=True)):
        first = shape.but(sequence=(shape.sequence + number * 7777) & 0xFFFFFFFF, payload=bytes(payload), flags=ACK)
        header = bytearray(first.build()[: shape.header_length])
        header[start + offload.csum_offset : start + offload.csum_offset + 2] = b"\0\0"
        for slab in (one, other):
            slab.arena.view[slab.start + 16 : slab.start + 16 + len(header)] = header
        sums.append(kernel.pseudo_checksum(first, length - start))
        last_flags.append(ACK | PSH if number % 2 else ACK)
    rows.write_segments(plain, offload, sums, last_flags, counts_ids=counts_ids)
    rows_numpy.write_segments(fast, offload, sums, last_flags, counts_ids=counts_ids)
    assert content(plain) == content(fast)
    for number, slab in enumerate(plain):
        for row, octets in enumerate(slab):
            packet = bytes(octets[:length])
            found = kernel.parse(packet)
            assert packet == found.build(), "lengths and checksums are right"
            if shape.protocol == TCP:
                assert found.sequence == (shape.sequence + number * 7777 + row * payload) & 0xFFFFFFFF
                assert found.flags == (last_flags[number] if row == count - 1 else ACK)
            if counts_ids:
                assert found.identification == (shape.identification + row) & 0xFFFF


CHANGES = {
    "none": {},
    "gap": {"sequence": 99},
    "flags": {"flags": ACK | PSH},
    "acknowledgement": {"acknowledgement": 5},
    "window": {"window": 5},
    "urgent": {"urgent": 5},
    "ttl": {"ttl": 5},
    "tos": {"tos": 1},
    "port": {"source_port": 5},
    "source": {"source": b"\x0a\0\0\x05"},
}


@BOTH
@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("row", [1, 2, 3])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_find_runs_in_one_stream(using: Rows, what: str, row: int, version: int, protocol: int) -> None:
    """The window must agree, or the kernel would be told the first one for all."""
    shapes = [
        PacketShape(protocol=protocol, payload=bytes([n]) * 101, sequence=2**32 - 150 + 101 * n, identification=n * n)
        for n in range(4)
    ]
    changes = dict(CHANGES[what])
    changes["payload"] = shapes[row].payload
    shapes[row] = shapes[row].but(**changes)
    if version == 6:
        shapes = [shape.six() for shape in shapes]
    first = shapes[0]
    start = 20 if version == 4 else 40
    offload = Offload(first.header_length, 101, start, 6 if protocol == UDP else 16, protocol == UDP)
    packets = [shape.build() for shape in shapes]
    is_tcp_only = what in ("gap", "flags", "acknowledgement", "window", "urgent")
    expected = what == "none" or (what == "flags" and row == 3) or (protocol == UDP and is_tcp_only)
    assert (using.find_runs([received(packets)], offload) == [[(0, True)]]) == expected
    damaged = [*packets[:row], packets[row][:-1] + bytes([packets[row][-1] ^ 4]), *packets[row + 1 :]]
    runs = using.find_runs([received(damaged)], offload)[0]
    harmed = [first for first, is_intact in runs if not is_intact]
    assert harmed == [max(first for first, _ in runs if first <= row)]


@given(st.lists(packet_shapes, min_size=1, max_size=4), st.integers(0, 99))
def test_find_runs_agrees_on_anything(shapes: list[PacketShape], seed: int) -> None:
    candidates = [one for one in shapes if one.protocol in (TCP, UDP) and one.payload]
    if not candidates:
        return
    first = candidates[0].build()
    packets = [(one.build() + bytes(len(first)))[: len(first)] for one in candidates]
    start = 20 if candidates[0].version == 4 else 40
    is_udp = candidates[0].protocol == UDP
    header = candidates[0].header_length
    offload = Offload(header, len(first) - header, start, 6 if is_udp else 16, is_udp)
    slab = received(packets)
    assert rows.is_one_flow(slab) == rows_numpy.is_one_flow(slab)
    assert rows.find_runs([slab], offload) == rows_numpy.find_runs([slab], offload)


@BOTH
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_find_runs_of_several_streams(using: Rows, version: int, protocol: int) -> None:
    """Cut where the flow changes, where a sequence number does not follow, and after PSH."""
    one = PacketShape(protocol=protocol, payload=bytes(100), sequence=2**32 - 150, identification=7)
    if version == 6:
        one = one.six()
    other = one.but(source_port=one.source_port + 1)
    shapes = [one.but(sequence=(one.sequence + 100 * n) % 2**32, identification=n) for n in range(3)]
    shapes += [other, other.but(sequence=(other.sequence + 100) % 2**32)]
    shapes += [one.but(sequence=(one.sequence + 300) % 2**32), one.but(sequence=(one.sequence + 500) % 2**32)]
    shapes += [one.but(sequence=(one.sequence + 600) % 2**32, flags=ACK | PSH)]
    shapes += [one.but(sequence=(one.sequence + 700) % 2**32)]
    start = 20 if version == 4 else 40
    offload = Offload(one.header_length, 100, start, 6 if protocol == UDP else 16, protocol == UDP)
    slab = received([shape.build() for shape in shapes])
    firsts = [0, 3, 5, 6, 8] if protocol == TCP else [0, 3, 5]
    assert using.find_runs([slab], offload) == [[(row, True) for row in firsts]]

"""After opening: what each row holds, trimmed and grouped; B25 to B28, T18, T19."""

from __future__ import annotations

import random

import pytest

from tests.property.rows import rows, rows_numpy
from tests.property.strategies import TCP, UDP, PacketShape, received
from wgpy.dataplane.inner import sort_rows
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Slab
from wgpy.wire import ip

BOTH = pytest.mark.parametrize("using", [rows, rows_numpy], ids=["plain", "numpy"])


def expected_of(slabs: list[Slab], refused: set[int]) -> tuple[list[tuple[bytes, bytes]], int, int, int]:
    """Packet by packet: (source, packet) of every whole one, keepalives, malformed ones, octets of all datagrams."""
    packets, keepalives, malformed, octets, number = [], 0, 0, 0, -1
    for slab in slabs:
        for row in slab:
            number += 1
            if number in refused:
                continue
            plaintext = bytes(row)
            length = ip.true_length_untrusted(plaintext)
            if not plaintext:
                keepalives += 1
            elif not length:
                malformed += 1
            else:
                packets.append((ip.source(plaintext), plaintext[:length]))
                octets += len(plaintext) + 32
    return packets, keepalives, malformed, octets


def plaintext_of(source: random.Random) -> bytes:
    shape = PacketShape(
        protocol=source.choice([TCP, UDP]),
        source=source.choice([b"\x0a\0\0\1", b"\x0a\0\0\1", b"\x0a\0\0\x05"]),
        payload=bytes(source.choice([0, 1, 40, 41, 45, 50, 200])),  # some differ in padding only
    )
    packet = (shape.six() if source.random() < 0.3 else shape).build()
    match source.randrange(12):
        case 0:
            return b""
        case 1:
            return source.randbytes(source.randint(1, 60))
        case 2:
            return packet[:-1]
        case 3:
            return packet
        case _:
            return packet + bytes(-len(packet) % 16)


def slab_of(source: random.Random) -> Slab:
    """Rows as one GRO batch brings them: one size, perhaps a shorter last."""
    first = plaintext_of(source)
    rows_ = [first]
    for _ in range(source.choice([0, 0, 1, 3, 6])):
        other = first if source.random() < 0.6 else plaintext_of(source)
        rows_.append((other + bytes(len(first)))[: len(first)])
    if len(rows_) > 1 and source.random() < 0.4:
        rows_[-1] = rows_[-1][: source.randint(0, len(first))]
    return received(rows_, stride=len(first))


@BOTH
@pytest.mark.parametrize("seed", range(80))
def test_it_finds_what_a_look_at_each_packet_finds(using: Rows, seed: int) -> None:
    source = random.Random(seed)
    slabs = [slab_of(source) for _ in range(source.randint(1, 6))]
    total = sum(slab.count for slab in slabs)
    refused = {row for row in range(total) if source.random() < (0.2 if seed % 2 else 0)}
    packets, keepalives, malformed, octets = expected_of(slabs, refused)
    found = sort_rows(slabs, sorted(refused), using)
    assert [(group.source, bytes(row)) for group in found.groups for row in group.slab] == packets
    assert all(group.slab.last_length <= group.slab.length for group in found.groups), "only the last may be shorter"
    assert (found.keepalives, found.malformed) == (keepalives, malformed)
    assert sum(group.octets for group in found.groups) == octets, "B28: before trimming"


@BOTH
def test_one_run_of_one_flow_is_one_group(using: Rows) -> None:
    packets = [PacketShape(payload=bytes(1368), options=bytes(12), sequence=n).build() for n in range(45)]
    (group,) = sort_rows([received(packets, stride=1420)], [], using).groups
    assert (group.slab.count, group.slab.length) == (45, 1420)
    assert group.octets == 45 * 1452


@BOTH
def test_t19_a_peer_that_does_not_pad_is_understood(using: Rows) -> None:
    packets = [PacketShape(payload=bytes(61)).build()] * 3
    (group,) = sort_rows([received(packets, stride=len(packets[0]))], [], using).groups
    assert [bytes(row) for row in group.slab] == packets


@BOTH
def test_a_last_packet_that_is_longer_within_its_padding_is_a_group_of_its_own(using: Rows) -> None:
    short, long = (PacketShape(payload=bytes(length)).build() for length in (41, 45))
    padded = [packet + bytes(-len(packet) % 16) for packet in (short, short, long)]
    groups = sort_rows([received(padded)], [], using).groups
    assert [[bytes(row) for row in group.slab] for group in groups] == [[short, short], [long]]

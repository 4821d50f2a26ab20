"""Reassembly and fragmentation (N33); what waits is bounded in every direction."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw

from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.constants import REASSEMBLY_OCTETS, REASSEMBLY_PACKETS_PER_SOURCE
from wgpy.netstack.fragments import Reassembler, fragments_of
from wgpy.wire import ip

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")
ENDS = [(A, B), (A6, B6)]


class Reassembly:
    """A reassembler, and what it told."""

    def __init__(self) -> None:
        self.drops: Counter[DropReason] = Counter()
        self.expired: list[bytes] = []
        self.reassembler = Reassembler(drop=self._drop, expired=self.expired.append)

    def _drop(self, reason: DropReason) -> None:
        self.drops[reason] += 1

    def add(self, packet: bytes, now: float = 0.0) -> bytes | None:
        return self.reassembler.add_untrusted(memoryview(packet), ip.decode_untrusted(packet), now)

    def add_all(self, packets: list[bytes]) -> list[bytes]:
        return [whole for whole in map(self.add, packets) if whole is not None]


def cut(ends: tuple[bytes, bytes], payload: bytes, mtu: int = 576, identification: int = 99) -> list[bytes]:
    return fragments_of(*ends, ip.UDP, payload, identification=identification, mtu=mtu)


def piece(ends: tuple[bytes, bytes], offset: int, data: bytes, *, is_last: bool = False, number: int = 1) -> bytes:
    part = ip.Fragment(number, offset, is_last)
    return ip.encode_header(*ends, ip.UDP, len(data), fragment=part) + data


@given(
    st.sampled_from(ENDS),
    st.integers(1, 20_000),
    st.integers(576, 1420),
    st.randoms(use_true_random=False),
)
def test_any_order_gives_the_packet_back(
    ends: tuple[bytes, bytes], size: int, mtu: int, shuffle: random.Random
) -> None:
    payload = shuffle.randbytes(size)
    packets = cut(ends, payload, mtu)
    assert all(len(packet) <= mtu for packet in packets)
    if len(packets) == 1:
        assert packets[0].endswith(payload)
        return
    assert len({len(packet) for packet in packets[:-1]}) == 1, "all but the last are of one length"
    reassembly = Reassembly()
    shuffle.shuffle(packets)
    [whole] = reassembly.add_all(packets)
    header = ip.decode_untrusted(whole)
    assert (header.source, header.destination, header.protocol, header.fragment) == (*ends, ip.UDP, None)
    assert whole[header.payload_at :] == payload
    assert (len(reassembly.reassembler), reassembly.reassembler.octets) == (0, 0)


def test_the_fragments_of_scapy_are_joined() -> None:
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=3) / UDP(sport=1, dport=2) / Raw(random.Random(1).randbytes(5000))
    [whole] = Reassembly().add_all([bytes(one) for one in fragment(packet, 800)])
    assert whole == bytes(packet)


@pytest.mark.parametrize("ends", ENDS)
def test_the_greatest_packet_is_joined(ends: tuple[bytes, bytes]) -> None:
    payload = bytes(65535 - (20 if len(ends[0]) == 4 else 0))
    [whole] = Reassembly().add_all(cut(ends, payload, 1420))
    assert len(whole) == 65535 + (0 if len(ends[0]) == 4 else 40)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(
    ("offset", "size"), [(0, 8), (8, 16), (0, 48), (24, 16), (40, 8), (16, 8)], ids=lambda value: str(value)
)
def test_an_overlap_spoils_the_packet_and_what_still_comes_of_it(
    ends: tuple[bytes, bytes], offset: int, size: int
) -> None:
    reassembly = Reassembly()
    for at in (0, 16, 32):
        reassembly.add(piece(ends, at, bytes(16)))
    with pytest.raises(BadPacket) as bad:
        reassembly.add(piece(ends, offset, b"x" * size))
    assert bad.value.reason is DropReason.FRAGMENT_OVERLAP
    with pytest.raises(BadPacket):
        reassembly.add(piece(ends, 48, b"end", is_last=True))
    assert len(reassembly.reassembler) == 1, "its name is remembered"
    reassembly.reassembler.handle_timer(60.0)
    assert len(reassembly.reassembler) == 0
    assert not reassembly.expired


@pytest.mark.parametrize("ends", ENDS)
def test_an_exact_repetition_is_the_network_s_doing(ends: tuple[bytes, bytes]) -> None:
    reassembly = Reassembly()
    packets = cut(ends, bytes(range(256)) * 8)
    assert reassembly.add_all([packets[0], packets[0], packets[1], packets[0], packets[1]]) == []
    assert len(reassembly.add_all(packets[2:])) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((16, 8, True), (24, 8, False)),  # beyond the end
        ((24, 8, False), (16, 8, True)),  # an end before what is there
        ((16, 8, True), (24, 8, True)),  # two ends
    ],
)
def test_contradictions_about_the_end_spoil_the_packet(
    first: tuple[int, int, bool], second: tuple[int, int, bool]
) -> None:
    reassembly = Reassembly()
    reassembly.add(piece((A, B), first[0], bytes(first[1]), is_last=first[2]))
    with pytest.raises(BadPacket):
        reassembly.add(piece((A, B), second[0], bytes(second[1]), is_last=second[2]))


def test_packets_are_told_apart() -> None:
    """By addresses and identification; over IPv4 also by protocol (RFC 791), over IPv6 not (RFC 8200 4.5)."""
    reassembly = Reassembly()
    reassembly.add(piece((A, B), 0, b"12345678", number=1))
    assert reassembly.add(piece((A, B), 8, b"end", number=2, is_last=True)) is None
    assert reassembly.add(piece((B, A), 8, b"end", number=1, is_last=True)) is None
    tcp = ip.encode_header(A, B, ip.TCP, 3, fragment=ip.Fragment(1, 8, True)) + b"end"
    assert reassembly.add(tcp) is None
    assert reassembly.add(piece((A, B), 8, b"end", number=1, is_last=True)) is not None


@pytest.mark.parametrize(("ends", "timeout"), [((A, B), 30.0), ((A6, B6), 60.0)])
def test_what_waits_too_long_is_given_up_and_its_first_fragment_shown(
    ends: tuple[bytes, bytes], timeout: float
) -> None:
    reassembly = Reassembly()
    first = piece(ends, 0, b"12345678", number=1)
    reassembly.add(first, 100.0)
    reassembly.add(piece(ends, 8, b"12345678", number=2), 101.0)
    assert reassembly.reassembler.next_deadline() == 100.0 + timeout
    reassembly.reassembler.handle_timer(99.9 + timeout)
    assert len(reassembly.reassembler) == 2
    reassembly.reassembler.handle_timer(1e6)
    assert reassembly.expired == [first]
    assert reassembly.drops == {DropReason.FRAGMENT_TIMEOUT: 2}
    assert (reassembly.reassembler.next_deadline(), reassembly.reassembler.octets) == (None, 0)


def test_one_source_may_have_so_many_unfinished_packets() -> None:
    reassembly = Reassembly()
    for number in range(REASSEMBLY_PACKETS_PER_SOURCE + 10):
        reassembly.add(piece((A, B), 0, b"12345678", number=number))
    reassembly.add(piece((B, A), 0, b"12345678"))
    assert len(reassembly.reassembler) == REASSEMBLY_PACKETS_PER_SOURCE + 1
    assert reassembly.drops == {DropReason.FRAGMENT_LIMIT: 10}
    assert reassembly.add(piece((A, B), 8, b"end", number=0, is_last=True)) is None, "the oldest is gone"
    assert reassembly.add(piece((A, B), 8, b"end", number=40, is_last=True)) is not None


@pytest.mark.parametrize("size", [8, 1400])
def test_all_that_waits_is_bounded_in_octets_however_small_the_pieces(size: int) -> None:
    reassembly = Reassembly()
    for number in range(12_000):
        source = (10 << 24 | number // 40).to_bytes(4)
        reassembly.add(piece((source, B), 8 + number % 40 * 1400, bytes(size), number=number // 20))
        assert reassembly.reassembler.octets <= REASSEMBLY_OCTETS
    assert reassembly.drops[DropReason.FRAGMENT_LIMIT] > 0


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=40), st.booleans()), max_size=20))
def test_hostile_fragments_raise_only_bad_packet_and_never_a_wrong_length(
    pieces: list[tuple[int, bytes, bool]],
) -> None:
    reassembly = Reassembly()
    for offset, data, is_last in pieces:
        if is_last and not offset:
            continue  # a whole packet
        try:
            whole = reassembly.add(piece((A, B), offset * 8, data, is_last=is_last))
        except BadPacket:
            continue
        if whole is not None:
            assert ip.decode_untrusted(whole).length == len(whole)

"""Received rows into writes: each rule of protocol notes 4.3 by name, and the whole against the kernel's rules.

What is written is read as the kernel would read it (`tests/dataplane/kernel.py`) and must be the packets that came.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from tests.dataplane import kernel
from tests.property.rows import rows, rows_numpy
from tests.property.strategies import (
    ACK,
    CWR,
    ECE,
    FIN,
    ICMP,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    PacketShape,
    received,
    slabs_of,
)
from wgpy.dataplane import merge
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Slab

BOTH = pytest.mark.parametrize("using", [rows, rows_numpy], ids=["plain", "numpy"])
FAMILIES = pytest.mark.parametrize("family", [4, 6])
SIZE = 100


def stream(
    count: int, *, family: int = 4, protocol: int = TCP, size: int = SIZE, **fields: object
) -> list[PacketShape]:
    """Packets that follow each other."""
    first = PacketShape(protocol=protocol, sequence=5000, **fields)  # type: ignore[arg-type]
    if family == 6:
        first = first.six()
    return [
        first.but(sequence=first.sequence + size * n, payload=bytes([n]) * size, identification=n) for n in range(count)
    ]


def as_slabs(shapes: Sequence[PacketShape | bytes], *, in_one: bool = False) -> list[Slab]:
    packets = [one if isinstance(one, bytes) else one.build() for one in shapes]
    return [received(packets)] if in_one else slabs_of(packets)


def merged(slabs: list[Slab], using: Rows = rows, *, joins_udp: bool = True) -> list[list[bytes]]:
    """For each write, the packets that the kernel makes of it."""
    out = []
    for write in merge.merge(slabs, joins_udp=joins_udp, rows=using):
        packets = kernel.written(b"".join(write.buffers))
        assert len(packets) == write.packets
        out.append([packet.build() for packet in packets])
    return out


def counts(shapes: Sequence[PacketShape | bytes], using: Rows = rows, *, joins_udp: bool = True) -> list[int]:
    """How many packets each write holds; the same for packets one by one and, where they fit, in one slab."""
    alone = [len(write) for write in merged(as_slabs(shapes), using, joins_udp=joins_udp)]
    lengths = [len(one) if isinstance(one, bytes) else len(one.build()) for one in shapes]
    if len(shapes) > 1 and len(set(lengths[:-1])) == 1 and lengths[-1] <= lengths[0]:
        together = [len(write) for write in merged(as_slabs(shapes, in_one=True), using, joins_udp=joins_udp)]
        assert together == alone, "a slab of one run is its packets one by one"
    return alone


def same(one: bytes) -> bytes:
    """A packet without what a superpacket says only once: the IPv4 identification, and the checksum over it."""
    return one if one[0] >> 4 == 6 else one[:4] + b"\0\0" + one[6:10] + b"\0\0" + one[12:]


@BOTH
@FAMILIES
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("in_one", [True, False], ids=["slab", "packets"])
def test_packets_that_follow_each_other_are_one_write(using: Rows, family: int, protocol: int, in_one: bool) -> None:
    shapes = stream(45, family=family, protocol=protocol)
    (write,) = merged(as_slabs(shapes, in_one=in_one), using)
    assert write == [
        shape.but(identification=shapes[0].identification + n if family == 4 else 0).build()
        for n, shape in enumerate(shapes)
    ]


@BOTH
@FAMILIES
def test_the_last_may_be_shorter_and_nothing_follows_it(using: Rows, family: int) -> None:
    shapes = stream(4, family=family)
    short = shapes[2].but(payload=b"s" * 40)
    after = shapes[3].but(sequence=shapes[2].sequence + 40, payload=b"t" * 40)
    assert counts([*shapes[:2], short], using) == [3]
    assert counts([*shapes[:2], short, after], using) == [3, 1]


@BOTH
def test_none_may_be_larger_than_the_first(using: Rows) -> None:
    shapes = stream(3)
    assert counts([shapes[0], shapes[1].but(payload=bytes(SIZE + 1))], using) == [1, 1]


@BOTH
@FAMILIES
def test_psh_ends_a_group(using: Rows, family: int) -> None:
    shapes = stream(4, family=family)
    shapes[1] = shapes[1].but(flags=ACK | PSH)
    assert counts(shapes, using) == [2, 2]
    (first, second) = merged(as_slabs(shapes), using)
    assert [kernel.parse(one).flags for one in first] == [ACK, ACK | PSH]
    assert [kernel.parse(one).flags for one in second] == [ACK, ACK]
    shapes = [*stream(3, family=family)[:2], stream(3, family=family)[2].but(flags=ACK | PSH)]
    assert counts(shapes, using) == [3]


@BOTH
@pytest.mark.parametrize("flags", [ACK | FIN, ACK | SYN, RST, ACK | RST, ACK | URG, ACK | ECE, ACK | CWR, PSH, 0, FIN])
def test_only_ack_and_ack_psh_are_joined(using: Rows, flags: int) -> None:
    shapes = stream(4)
    assert counts([shapes[0].but(flags=flags), *shapes[1:3]], using) == [1, 2]
    assert counts([*shapes[:2], shapes[2].but(flags=flags)], using) == [2, 1]
    assert counts([*shapes[:2], shapes[2].but(flags=flags), shapes[3]], using) == [2, 1, 1], "and it ends the run"


def differing(family: int) -> dict[str, dict[str, object]]:
    both: dict[str, dict[str, object]] = {
        "source": {"source": b"\x0a\0\0\x09"} if family == 4 else {"source": b"\xfd" + bytes(14) + b"\x09"},
        "target": {"target": b"\x0a\0\0\x09"} if family == 4 else {"target": b"\xfd" + bytes(14) + b"\x09"},
        "source port": {"source_port": 1001},
        "target port": {"target_port": 2001},
        "acknowledgement": {"acknowledgement": 78},
        "TTL": {"ttl": 63},
        "ECN": {"tos": 3},
        "DSCP": {"tos": 0x88},
        "options": {"options": b"\1\1\x08\x0a" + bytes(7) + b"\1"},
        "no options": {"options": b""},
        "gap": {"sequence": 5000 + SIZE + 1},
        "overlap": {"sequence": 5000 + SIZE - 1},
    }
    if family == 4:
        return {**both, "no DF": {"fragment": 0}, "reserved bit": {"fragment": 0xC000}}
    return {**both, "flow label": {"flow_label": 5}}


@BOTH
@pytest.mark.parametrize(("family", "what"), [(family, what) for family in (4, 6) for what in differing(family)])
def test_what_a_header_can_say_only_once_must_agree(using: Rows, family: int, what: str) -> None:
    options = b"\1\1\x08\x0a" + bytes(8)
    first, second = stream(2, family=family, options=options)
    assert counts([first, second], using) == [2]
    assert counts([first, second.but(**differing(family)[what])], using) == [1, 1]


@BOTH
def test_a_segment_may_be_put_in_front(using: Rows) -> None:
    """It ends where the group starts; the group must then leave in the order of the stream."""
    a, b, c = stream(3)
    (write,) = merged(as_slabs([b, c, a]), using)
    assert [kernel.parse(one).sequence for one in write] == [5000, 5100, 5200]
    assert [same(one) for one in write] == [same(one.build()) for one in (a, b, c)]


@BOTH
def test_a_segment_in_front_must_be_full_and_without_psh(using: Rows) -> None:
    a, b, c = stream(3)
    assert counts([b, c, a.but(flags=ACK | PSH)], using) == [2, 1]
    short = a.but(sequence=5060, payload=bytes(40))
    assert counts([b, c, short], using) == [2, 1]


@BOTH
def test_a_segment_in_front_of_a_lone_short_one_keeps_the_sizes_right(using: Rows) -> None:
    a, b = stream(2)
    lone = b.but(payload=bytes(40))
    writes = merged(as_slabs([lone, a]), using)
    assert sorted(same(one) for write in writes for one in write) == sorted(same(one.build()) for one in (lone, a))


@BOTH
def test_sequence_numbers_wrap(using: Rows) -> None:
    shapes = [one.but(sequence=(one.sequence - 5000 + 2**32 - 150) & 0xFFFFFFFF) for one in stream(4)]
    assert counts(shapes, using) == [4]


@BOTH
@FAMILIES
def test_udp_is_joined_only_where_the_device_takes_it_and_never_reordered(using: Rows, family: int) -> None:
    shapes = stream(3, family=family, protocol=UDP)
    assert counts(shapes, using) == [3]
    assert counts(shapes, using, joins_udp=False) == [1, 1, 1]
    larger = shapes[1].but(payload=bytes(SIZE + 2))
    writes = merged(as_slabs([shapes[0], larger, shapes[2]]), using)
    assert [len(write) for write in writes] == [1, 2]
    assert [same(one) for write in writes for one in write] == [
        same(one.build()) for one in (shapes[0], larger, shapes[2])
    ]


@BOTH
def test_a_udp_packet_without_checksum_is_not_joined(using: Rows) -> None:
    """RFC 768: zero means none; joining would make one up."""
    packets = [shape.build() for shape in stream(3, protocol=UDP)]
    bare = [packet[:26] + b"\0\0" + packet[28:] for packet in packets]
    assert counts(bare, using) == [1, 1, 1]


@BOTH
@FAMILIES
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_wrong_checksum_is_passed_on_alone_and_unmended(
    using: Rows, family: int, protocol: int, position: int
) -> None:
    packets = [shape.build() for shape in stream(3, family=family, protocol=protocol)]
    packets[position] = packets[position][:-1] + bytes([packets[position][-1] ^ 1])
    for in_one in (False, True):
        slabs = as_slabs(packets, in_one=in_one)
        octets = [b"".join(write.buffers) for write in merge.merge(slabs, joins_udp=True, rows=using)]
        assert bytes(10) + packets[position] in octets


@BOTH
def test_a_wrong_ipv4_header_checksum_is_passed_on_unmended(using: Rows) -> None:
    packets = [shape.build() for shape in stream(3)]
    packets[1] = packets[1][:10] + bytes([packets[1][10] ^ 1]) + packets[1][11:]
    for in_one in (False, True):
        slabs = as_slabs(packets, in_one=in_one)
        octets = [b"".join(write.buffers) for write in merge.merge(slabs, joins_udp=True, rows=using)]
        assert bytes(10) + packets[1] in octets


@BOTH
@pytest.mark.parametrize(
    "shape",
    [
        PacketShape(payload=b""),
        PacketShape(payload=bytes(SIZE), ip_options=b"\1\1\1\1"),
        PacketShape(payload=bytes(SIZE), fragment=0x2000),
        PacketShape(payload=bytes(SIZE), fragment=0x0003),
        PacketShape(protocol=UDP, payload=b""),
        PacketShape(protocol=ICMP, payload=bytes(SIZE)),
        PacketShape(protocol=ICMP, payload=bytes(SIZE)).six(),
        PacketShape(protocol=0, payload=bytes([6, 0]) + bytes(98)).six(),
    ],
    ids=["no payload", "options", "first fragment", "last fragment", "empty UDP", "ICMP", "ICMP 6", "extension"],
)
def test_what_is_no_candidate_leaves_alone_with_a_zeroed_header(using: Rows, shape: PacketShape) -> None:
    packet = shape.build()
    (write, again) = merge.merge(as_slabs([packet, packet]), joins_udp=True, rows=using)
    assert b"".join(write.buffers) == b"".join(again.buffers) == bytes(10) + packet


@BOTH
def test_the_length_field_must_be_that_of_the_packet(using: Rows) -> None:
    first, second = (shape.build() for shape in stream(2, protocol=UDP))
    lying = first[:24] + (108 - 8).to_bytes(2) + first[26:]
    assert counts([lying, second], using) == [1, 1]


@BOTH
def test_a_group_ends_at_65535_octets(using: Rows) -> None:
    shapes = stream(60, size=1400)
    writes = merged(as_slabs(shapes), using)
    assert [len(write) for write in writes] == [46, 14]
    assert 40 + 46 * 1400 <= 65535 < 40 + 47 * 1400
    (large,) = [received([shape.build() for shape in shapes])]
    assert [same(one) for write in merged([large], using) for one in write] == [same(one.build()) for one in shapes]


@BOTH
def test_two_flows_in_turns_are_two_writes(using: Rows) -> None:
    one, other = stream(5), stream(5, source_port=1001)
    mixed = [shape for pair in zip(one, other, strict=True) for shape in pair]
    writes = merged(as_slabs(mixed), using)
    assert [len(write) for write in writes] == [5, 5]


@BOTH
def test_a_stale_header_is_never_left_behind(using: Rows) -> None:
    """Protocol notes 4.3: the header is built last, over whatever the headroom held."""
    slabs = as_slabs(stream(1))
    slabs[0].arena.view[:16] = b"\xff" * 16
    assert [len(write) for write in merged(slabs, using)] == [1]


@BOTH
@pytest.mark.parametrize("barrier", ["fragment", "option"])
def test_what_may_be_of_any_flow_is_overtaken_by_nobody(using: Rows, barrier: str) -> None:
    """A fragment has no ports to tell its flow by."""
    shapes = stream(4, protocol=UDP)
    changes = {"fragment": {"fragment": 0x2000}, "option": {"ip_options": b"\1\1\1\1"}}[barrier]
    between = shapes[2].but(**changes)
    writes = merge.merge(as_slabs([*shapes[:2], between, shapes[3]]), joins_udp=True, rows=using)
    assert [write.packets for write in writes] == [2, 1, 1]


@BOTH
def test_a_packet_that_cannot_be_joined_is_not_overtaken_by_its_flow(using: Rows) -> None:
    shapes = stream(3, protocol=UDP)
    assert counts([shapes[0], shapes[1].but(payload=b""), shapes[2]], using) == [1, 1, 1]


@BOTH
@FAMILIES
def test_what_follows_a_whole_slab_does_not_overtake_it(using: Rows, family: int) -> None:
    packets = [shape.build() for shape in stream(5, protocol=UDP, family=family)]
    slabs = [received(packets[:1]), received(packets[1:4]), received(packets[4:])]
    found = raw(merge.merge(slabs, joins_udp=True, rows=using))
    assert [same(one) for one in found] == [same(one) for one in packets]


# --- the whole, with random mixes -----------------------------------------------------------------------------------

Step = tuple[str, int, int, int, int]
KINDS = ["tcp"] * 8 + ["tcp6"] * 4 + ["udp"] * 4 + ["udp6"] * 3 + ["icmp", "fragment", "option", "damage"]


def script_of(source: random.Random, *, jumps: bool) -> list[Step]:
    """Runs of one kind, as traffic comes, with something odd now and then."""
    script: list[Step] = []
    while len(script) < 60:
        kind, flow = source.choice(KINDS), source.choice([0, 0, 1])
        for _ in range(source.choice([1, 1, 2, 3, 5, 9])):
            flags = source.choice([ACK] * 8 + [ACK | PSH, ACK | FIN])
            size = source.choice([100] * 8 + [60, 120])
            jump = source.choice([0] * 6 + [-size, -100, 100, 7]) if jumps else 0
            script.append((kind, flags, size, jump, flow))
    return script


def packets_of(script: list[Step]) -> list[bytes]:
    sequences = {(kind, flow): 2**32 - 300 for kind in ("tcp", "tcp6") for flow in (0, 1)}
    out = []
    for number, (kind, flags, size, jump, flow) in enumerate(script):
        shape = PacketShape(source_port=1000 + flow, payload=bytes([number & 0xFF]) * size, identification=number)
        match kind:
            case "tcp" | "tcp6":
                sequence = (sequences[kind, flow] + jump) & 0xFFFFFFFF
                sequences[kind, flow] = (sequence + size) & 0xFFFFFFFF
                shape = shape.but(sequence=sequence, flags=flags)
                out.append((shape.six() if kind == "tcp6" else shape).build())
            case "udp" | "udp6":
                shape = shape.but(protocol=UDP)
                out.append((shape.six() if kind == "udp6" else shape).build())
            case "icmp":
                out.append(shape.but(protocol=ICMP).build())
            case "fragment":
                out.append(shape.but(protocol=UDP, fragment=0x2000).build())
            case "option":
                out.append(shape.but(ip_options=b"\1\1\1\1").build())
            case _:
                packet = shape.but(sequence=sequences["tcp", flow]).build()
                out.append(packet[:-1] + bytes([packet[-1] ^ 0xFF]))
    return out


def in_slabs(packets: list[bytes], lengths: list[int]) -> list[Slab]:
    """Neighbours that may share a slab, in slabs of at most the drawn lengths."""
    slabs, at = [], 0
    for most in itertools.cycle(lengths):
        if at >= len(packets):
            return slabs
        end = at + 1
        while end < min(at + most, len(packets)) and len(packets[end - 1]) == len(packets[at]) >= len(packets[end]):
            end += 1
        slabs.append(received(packets[at:end]))
        at = end
    return slabs


def raw(writes: Sequence[merge.Write]) -> list[bytes]:
    """The packets that the kernel makes, one by one, octet by octet: damaged ones too."""
    out = []
    for write in writes:
        octets = b"".join(write.buffers)
        out += [octets[10:]] if octets[1] == 0 else [packet.build() for packet in kernel.written(octets)]
    return out


SEEDS = pytest.mark.parametrize("seed", range(60))


@BOTH
@SEEDS
def test_nothing_is_lost_made_up_or_overtaken(using: Rows, seed: int) -> None:
    source = random.Random(seed)
    jumps = seed % 2 == 1
    packets = packets_of(script_of(source, jumps=jumps))
    slabs = in_slabs(packets, [source.randint(1, 12) for _ in range(8)])
    found = raw(merge.merge(slabs, joins_udp=seed % 3 > 0, rows=using))
    assert sorted(map(same, found)) == sorted(map(same, packets))
    for flow in {flow_of(packet) for packet in packets} - {None}:
        came = [same(packet) for packet in packets if flow_of(packet) == flow]
        left = [same(packet) for packet in found if flow_of(packet) == flow]
        assert left == came or (jumps and flow[0] == TCP), "only TCP segments may be put in front"


def flow_of(packet: bytes) -> tuple[int, bytes] | None:
    if packet[0] >> 4 == 4:
        return (packet[9], packet[12:24]) if packet[9] in (TCP, UDP) and packet[0] == 0x45 else None
    return (packet[6], packet[8:44])


@SEEDS
def test_plain_and_numpy_rows_write_the_same_octets(seed: int) -> None:
    source = random.Random(seed)
    packets = packets_of(script_of(source, jumps=True))
    lengths = [source.randint(1, 12) for _ in range(8)]
    plain, fast = (
        [
            (b"".join(write.buffers), write.packets)
            for write in merge.merge(in_slabs(packets, lengths), joins_udp=seed % 3 > 0, rows=using)
        ]
        for using in (rows, rows_numpy)
    )
    assert plain == fast


@BOTH
@FAMILIES
def test_a_slab_of_several_streams_is_one_write_for_each(using: Rows, family: int) -> None:
    """As it comes when eight streams share a tunnel: the outer datagrams are alike, whoever is inside."""
    one = stream(17, family=family)
    other = [shape.but(source_port=4444) for shape in stream(12, family=family)]
    tail = one[16].but(payload=b"t" * 40)
    shapes = [*one[:6], *other[:7], *one[6:16], *other[7:], tail]
    assert [len(write) for write in merged(as_slabs(shapes, in_one=True), using)] == [6, 7, 10, 5, 1]
    assert [len(write) for write in merged(as_slabs([*shapes[:-6], tail], in_one=True), using)] == [6, 7, 11]
    damaged = [shape.build() for shape in shapes]
    damaged[8] = damaged[8][:-1] + bytes([damaged[8][-1] ^ 1])
    counted = [len(write) for write in merged(as_slabs(damaged, in_one=True), using)]
    assert sum(counted) == len(shapes)
    assert {6, 10} < set(counted), "what is damaged harms its own run only"


@BOTH
def test_streams_that_take_turns_packet_by_packet_are_joined_too(using: Rows) -> None:
    one, other = stream(20), [shape.but(source_port=4444) for shape in stream(20)]
    mixed = list(itertools.chain.from_iterable(zip(one, other, strict=True)))
    assert [len(write) for write in merged(as_slabs(mixed, in_one=True), using)] == [20, 20]

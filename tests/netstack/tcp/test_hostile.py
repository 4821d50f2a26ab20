"""Hostile input (suite D): nothing raises, memory and rate stay bounded, neighbours do not notice."""

import itertools
import os
import random

import pytest

from tests.netstack.tcp.conversation import Talker, join
from wgpy.errors import DropReason
from wgpy.netstack.constants import MAX_PIECES
from wgpy.testing.link import Link
from wgpy.testing.script import Script
from wgpy.wire import ip, tcp
from wgpy.wire.checksum import checksum, pseudo_header_sum

MSS = 1380
# More of everything for a night: WGPY_FUZZ=1000000.
PACKETS = int(os.environ.get("WGPY_FUZZ", "4000"))


def _repaired(packet):
    """The packet with right checksums, as far as it has headers."""
    packet = bytearray(packet)
    if len(packet) >= 40 and packet[0] == 0x45:
        packet[10:12] = bytes(2)
        packet[10:12] = checksum(packet[:20]).to_bytes(2)
        packet[36:38] = bytes(2)
        total = pseudo_header_sum(bytes(packet[12:16]), bytes(packet[16:20]), ip.TCP, len(packet) - 20)
        packet[36:38] = checksum(packet[20:], total).to_bytes(2)
    return bytes(packet)


def _mutant(packet, rand):
    """A packet of a live connection, spoilt."""
    packet = bytearray(packet)
    kind = rand.randrange(7)
    if kind == 0:
        for _ in range(rand.randrange(1, 8)):
            packet[rand.randrange(len(packet))] ^= 1 << rand.randrange(8)
    elif kind == 1:
        packet = packet[: rand.randrange(1, len(packet) + 1)]
    elif kind == 2 and len(packet) >= 40:
        packet[32] = rand.randrange(256)  # header length
    elif kind == 3 and len(packet) >= 40:
        packet[33] = rand.randrange(256)  # flags
        packet[24:32] = rand.randbytes(8)  # sequence number and acknowledgement
    elif kind == 4 and len(packet) >= 40:
        options = rand.randbytes(rand.randrange(1, 11) * 4)
        packet = packet[:40] + options + packet[40:]
        packet[32] = 5 + len(options) // 4 << 4
    elif kind == 5 and len(packet) >= 40:
        near = int.from_bytes(packet[24:28]) + rand.randrange(-100_000, 100_000)
        packet[24:28] = (near & 0xFFFFFFFF).to_bytes(4)
        packet[33] ^= 1 << rand.randrange(8)
    else:
        packet = bytearray(rand.randbytes(rand.randrange(1, 100)))
    if rand.random() < 0.7 and packet[0] == 0x45 and len(packet) >= 20:
        packet[2:4] = len(packet).to_bytes(2)
    return _repaired(packet) if rand.random() < 0.7 else bytes(packet)


@pytest.mark.parametrize("seed", [1, 2])
def test_mutants_of_live_segments_raise_nothing_and_spare_the_neighbour(seed):
    rand = random.Random(seed)
    link = join(Link(seed=seed, delay=0.005))
    a, b = (side.stack for side in link.sides)
    listener, other = b.listen_tcp(80), b.listen_tcp(81)
    victim = a.connect_tcp(("10.0.0.2", 80), link.now)
    neighbour = Talker(a.connect_tcp(("10.0.0.2", 81), link.now), seed, 300_000)
    peers = []
    for number in range(PACKETS // 2):
        if victim.is_closed:
            victim = a.connect_tcp(("10.0.0.2", 80), link.now)
        if victim.is_established and victim.sender.fin is None and victim.error is None:
            victim.write(b"x" * 500, link.now)
        while (accepted := listener.accept()) is not None:
            accepted.read(1 << 20, link.now)
        if (accepted := other.accept()) is not None:
            peers.append(Talker(accepted, seed + 1, 1000))
        for talker in (neighbour, *peers):
            talker.act(link.now)
        link.flush()
        if number % 5 == 0:
            link.run(0.002)
        mine = [tapped for tapped in link.tap[-30:] if b"\x00\x50" in tapped.packet[20:24]]
        if mine:
            tapped = rand.choice(mine)
            link.inject(_mutant(tapped.packet, rand), 1 - tapped.sender)
            link.inject(_mutant(tapped.packet, rand), 1 - tapped.sender)
    assert link.run_until(lambda: [talker.act(link.now) for talker in (neighbour, *peers)] and neighbour.is_done, 60)
    assert neighbour.connection.error is None
    assert bytes(peers[0].got) == neighbour.stream
    assert sum(b.drops.values()) > PACKETS / 4


def test_random_packets_raise_nothing():
    rand = random.Random(7)
    script = Script()
    script.listen()
    for _ in range(PACKETS):
        packet = bytearray(rand.randbytes(rand.randrange(20, 120)))
        packet[0] = rand.choice((0x45, 0x46, 0x60, packet[0]))
        if rand.random() < 0.8:
            packet[2:4] = len(packet).to_bytes(2)
            packet[9] = packet[6] = ip.TCP
            packet[16:20] = script.local
        script.inject_packet(_repaired(packet) if rand.random() < 0.5 else bytes(packet))
    assert script.stack.statistics().connections <= 256


def test_a_flood_of_syns_leaves_room_for_others():
    """10,000 random sources; a legitimate connect takes less than three seconds."""
    rand = random.Random(3)
    link = join(Link(delay=0.02, is_tapped=False))
    a, b = (side.stack for side in link.sides)
    listener = b.listen_tcp(80)
    script = Script()
    script.local, script.port = bytes((10, 0, 0, 2)), 80
    begin = link.now
    connection = None
    for number in range(10_000):
        script.remote = bytes((rand.randrange(1, 100), *rand.randbytes(3)))
        script.peer_port = rand.randrange(1024, 65536)
        link.inject(script.packet("S", seq=rand.randrange(1 << 32)), 1)
        if number == 5000:
            connection = a.connect_tcp(("10.0.0.2", 80), link.now)
        if number % 100 == 0:
            link.run(0.005)
    assert connection is not None
    assert link.run_until(lambda: connection.is_established, 3)
    assert link.run_until(lambda: listener.is_readable, 3)
    assert b.statistics().half_open <= 256
    assert link.now - begin < 5


def test_sack_bombs_cost_no_memory():
    """Blocks of single octets all over the window."""
    script = Script()
    connection = script.open()
    connection.write(bytes(100 * MSS), script.now)
    script.collect()
    rand = random.Random(1)
    flight = connection.info().flight
    for _ in range(2000):
        lefts = [rand.randrange(1, flight) for _ in range(4)]
        script.inject("A", seq=1, ack=1, sack=tuple((left, left + rand.randrange(1, 3000)) for left in lefts))
    assert len(connection.sender.board.runs) <= connection.info().flight // MSS + 1


def test_single_octets_all_over_the_window_cost_no_memory():
    """The other way: data in pieces, each ahead of a hole."""
    script = Script()
    connection = script.open()
    for at in range(3, 3 + 4 * MAX_PIECES, 2):
        script.inject("A", seq=at, ack=1, payload=b"x")
    assert len(connection.receiver.pieces) == MAX_PIECES
    # One segment that covers them all is taken, and all is in order.
    script.inject("A", seq=1, ack=1, payload=bytes(2 + 2 * MAX_PIECES))
    assert connection.receiver.nxt - script.iss >= 2 * MAX_PIECES
    assert len(connection.receiver.pieces) <= MAX_PIECES


def test_a_window_of_zero_holds_nothing_but_the_buffer():
    script = Script()
    connection = script.open()
    script.inject("A", seq=1, ack=1, window=0)
    taken = 1
    while taken:
        taken = connection.write(bytes(1 << 20), script.now)
    assert connection.info().send_buffered <= 1 << 18
    assert not connection.is_writable


def test_a_divided_acknowledgement_brings_no_more_than_its_octets():
    """ACK division (Savage et al., 1999): growth is counted in octets."""
    script = Script()
    connection = script.open()
    connection.write(bytes(100 * MSS), script.now)
    script.collect()
    for octet in range(2, 2 + MSS):
        script.inject("A", seq=1, ack=octet)
    assert connection.info().cwnd <= 12 * MSS


def test_an_acknowledgement_of_octets_before_the_first_is_refused():
    """RFC 5961 section 5 takes a window's worth of older ones, of which a new connection has none."""
    script = Script()
    connection = script.open()
    script.inject("PA", seq=1, ack=0, payload=b"forged")
    script.expect("A", seq=1, ack=1)
    assert not connection.is_readable
    assert script.stack.drops[DropReason.TCP_BLIND] == 1


def test_an_optimistic_acknowledgement_is_refused():
    """For what was not sent yet."""
    script = Script()
    connection = script.open()
    connection.write(bytes(100 * MSS), script.now)
    script.collect()
    before = connection.info().cwnd
    script.inject("A", seq=1, ack=1 + 50 * MSS)
    assert connection.info().cwnd == before
    assert script.stack.drops[DropReason.TCP_BLIND] == 1


@pytest.mark.parametrize("flags", ["R", "S", "PA"])
def test_blind_guesses_reach_nothing(flags):
    """RST, SYN and data with the right ports and random numbers: none accepted, none answered without limit."""
    script = Script()
    connection = script.open()
    script.sent.clear()
    rand = random.Random(5)
    for _ in range(PACKETS):
        script.inject(flags, seq=rand.randrange(1 << 32), ack=rand.randrange(1 << 32), payload=b"evil" * ("P" in flags))
        assert connection.error is None
    assert connection.info().receive_buffered == 0
    assert not connection.receiver.pieces
    # What falls close below the window looks like an old duplicate, which must be answered.
    assert len(script.sent) <= 2 + PACKETS // 20_000


def test_initial_numbers_and_ports_follow_no_pattern():
    """RFC 6528, RFC 6056: over many connects, and differently in each stack."""
    numbers, ports = [], []
    for seed in (1, 2):
        script = Script(seed=seed)
        connections = [script.stack.connect_tcp(("10.0.0.2", 1 + number), script.now) for number in range(1000)]
        numbers.append([connection.sender.iss for connection in connections])
        ports.append([connection.local[1] for connection in connections])
    for series in (*numbers, *ports):
        deltas = [after - before for before, after in itertools.pairwise(series)]
        assert max(deltas.count(delta) for delta in set(deltas)) <= 5
    assert len(set(numbers[0]) & set(numbers[1])) <= 2


def test_segments_of_strangers_are_answered_with_few_resets():
    script = Script()
    script.port, script.peer_port = 9, 9
    for _ in range(1000):
        script.inject("A", seq=1, ack=1)
    assert len(script.sent) == 100
    assert all(sent.segment.flags & tcp.RST for sent in script.sent)

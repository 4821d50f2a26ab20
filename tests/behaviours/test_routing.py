"""B24 to B28: whose packet it is, what is inside, how it is padded and counted."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest

from tests.behaviours.forge import Initiator
from wgpy.config import Endpoint, PeerConfig
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.testing.network import Network
from wgpy.testing.pair import A4, B4, Pair, packet

ELSEWHERE = Endpoint("198.51.100.9", 9999)


@pytest.fixture
def forged() -> tuple[Pair, Initiator]:
    """`b` in session with a forger that may send any plaintext."""
    pair = Pair()
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    return pair, forger


def test_b24_a_wide_prefix_does_not_cover_what_another_peer_owns(forged: tuple[Pair, Initiator]) -> None:
    pair, forger = forged
    engine, now = pair.b.engine, pair.network.now
    engine.update_peer(PeerConfig(pair.a_key.public_key, allowed_ips=["0.0.0.0/0", "::/0"]), now)
    other = PeerConfig(PrivateKey.generate().public_key, allowed_ips=["10.0.0.77/32", "fd00::77/128"])
    engine.add_peer(other, now)
    inner = [packet(source) for source in ("10.0.0.77", "10.0.0.78")]
    inner += [packet(source, "fd00::2") for source in ("fd00::77", "fd00::78")]
    for counter, one in enumerate(inner):
        pair.network.inject(forger.transport(counter, one), A4, B4)
    assert pair.b.received == [inner[1], inner[3]]
    engine.update_peer(PeerConfig(pair.a_key.public_key, allowed_ips=["10.0.0.77/32"]), now)
    pair.network.inject(forger.transport(9, inner[0]), A4, B4)
    assert pair.b.received[-1] == inner[0], "a prefix given to another peer moves at once"


def test_b24_the_owner_is_the_longest_prefix() -> None:
    source = random.Random(24)
    pair = Pair(Network(drop=lambda datagram: True))
    engine, now = pair.a.engine, pair.network.now
    table: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, int] = {}
    keys = [PrivateKey.generate().public_key for _ in range(40)]
    for number, key in enumerate(keys):
        prefixes = []
        for _ in range(8):
            bits, kind = source.choice([(32, ipaddress.IPv4Network), (128, ipaddress.IPv6Network)])
            value = source.getrandbits(6) << (bits - 6) | source.getrandbits(6)
            prefixes.append(kind((value, source.choice([0, 1, 2, 3, 5, bits - 6, bits - 3, bits])), strict=False))
        for prefix in prefixes:
            table[prefix] = number
        engine.add_peer(
            PeerConfig(
                key, allowed_ips=[str(one) for one in prefixes], endpoint=Endpoint("203.0.113.1", 1000 + number)
            ),
            now,
        )
    for _ in range(500):
        bits = source.choice([32, 128])
        value = source.getrandbits(6) << (bits - 6) | source.getrandbits(6)
        address = ipaddress.IPv4Address(value) if bits == 32 else ipaddress.IPv6Address(value)
        matches = [one for one in table if one.version == address.version and address in one]
        expected = keys[table[max(matches, key=lambda one: one.prefixlen)]] if matches else None
        before = {key: one.staged_packets for key, one in engine.statistics().peers.items()}
        engine.send_packet(packet("10.0.0.1" if bits == 32 else "fd00::1", str(address)), now)
        after = engine.statistics()
        grown = [
            key
            for key, one in after.peers.items()
            if (one.staged_packets, one.drops) != (before.get(key, 0), {}) and one.staged_packets != before.get(key, 0)
        ]
        assert grown == ([expected] if expected else [])
        if expected:
            engine.remove_peer(expected, now)
            index = keys.index(expected)
            owned = [str(one) for one, owner in table.items() if owner == index]
            engine.add_peer(
                PeerConfig(expected, allowed_ips=owned, endpoint=Endpoint("203.0.113.1", 1000 + index)), now
            )
        engine.datagrams_to_send()


def test_b25_a_disallowed_source_is_dropped_and_all_else_is_updated(forged: tuple[Pair, Initiator]) -> None:
    pair, forger = forged
    pair.network.inject(forger.transport(3, packet("10.0.0.99")), ELSEWHERE, B4)
    assert pair.b.received == []
    state = pair.b.engine.statistics().peers[pair.a_key.public_key]
    assert state.drops[DropReason.DISALLOWED_SOURCE] == 1
    assert state.endpoint == ELSEWHERE
    assert state.has_session, "the session is confirmed"
    assert state.last_received_at == pair.network.now
    pair.network.inject(forger.transport(3, packet()), ELSEWHERE, B4)
    assert pair.b.received == [], "the window has moved"
    pair.network.run(10.1)
    assert len(pair.network.sent_by(pair.b, 4)) == 1, "the passive keepalive is armed"


def malformed() -> list[bytes]:
    good4, good6 = packet(payload=bytes(40)), packet("fd00::1", "fd00::2", bytes(40))
    made = [good4[:2] + struct.pack("!H", length) + good4[4:] for length in (0, 19, len(good4) + 16, 65535)]
    made += [good6[:4] + struct.pack("!H", length) + good6[6:] for length in (0xFFFF, *range(0xFFD8, 0xFFFF, 7), 80)]
    made += [bytes([version << 4]) + good4[1:] for version in (0, 5, 15)]
    return [*made, b"\x45", b"\x60", good4[:19], good6[:39]]


@pytest.mark.parametrize("inner", malformed(), ids=lambda inner: inner[:6].hex())
def test_b26_malformed_inner_packets_are_dropped(forged: tuple[Pair, Initiator], inner: bytes) -> None:
    pair, forger = forged
    pair.network.inject(forger.transport(0, inner), A4, B4)
    assert pair.b.received == []
    assert pair.b.engine.statistics().drops[DropReason.INNER_MALFORMED] == 1
    pair.network.inject(forger.transport(1, packet()), A4, B4)
    assert pair.b.received == [packet()]


@pytest.mark.parametrize("mtu", [1420, 1413, 1280])
def test_b27_padding_is_zeros_to_16_but_never_beyond_the_mtu(mtu: int) -> None:
    pair = Pair(mtu=mtu)
    forger = Initiator(pair.a_key, pair.b_key.public_key, pair.network.random.randbytes)
    pair.network.inject(forger.initiation(pair.network.wall_clock()), A4, B4)
    forger.accept(pair.network.sent_by(pair.b, 2)[0].octets)
    pair.network.inject(forger.transport(0), A4, B4)
    for length in [*range(28, 100), *range(mtu - 40, mtu + 1)]:
        inner = packet("10.0.0.2", "10.0.0.1", b"\xff" * (length - 28))
        pair.b.send(inner)
        sent = pair.network.sent_by(pair.b, 4)[-1].octets
        assert len(sent) - 32 == min(mtu, (length + 15) // 16 * 16)
        plaintext = forger.read(sent)
        assert plaintext[:length] == inner
        assert not any(plaintext[length:])


def test_b27_a_packet_above_the_mtu_does_no_harm() -> None:
    pair = Pair()
    pair.shake_hands()
    pair.a.engine.set_mtu(1280)
    large = packet(payload=bytes(1392))
    pair.a.send(large)
    pair.network.run(1)
    assert pair.b.received == [large]
    assert pair.exchange()


def test_b28_octets_are_counted_as_whole_datagrams() -> None:
    pair = Pair()
    for number in range(10):
        pair.a.send(packet(payload=bytes(56)))
        pair.network.run(0.5)
        assert len(pair.b.received) == number + 1
        pair.b.send(packet("10.0.0.2", "10.0.0.1", bytes(56)))
        pair.network.run(0.5)
    here = pair.a.engine.statistics().peers[pair.b_key.public_key]
    there = pair.b.engine.statistics().peers[pair.a_key.public_key]
    assert (here.rx_bytes, here.tx_bytes) == (1372, 1428)
    assert (there.tx_bytes, there.rx_bytes) == (1372, 1428)

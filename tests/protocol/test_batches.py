"""The batch path of the engine against the plain one: the same datagrams, one by one, with the plain rows.

Two engines with the same secrets get the same traffic of several peers: keypairs in every slot, forgeries, replays,
truncated datagrams, wrong indices, odd lengths, keepalives, both IP versions, TCP and UDP, marks, sources that are not
allowed. One gets it in GRO batches, several per call, with short last datagrams; the other datagram by datagram.
What they deliver, answer, count and know must be the same.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.behaviours.forge import Initiator
from tests.fuzz.rounds import seeds
from tests.property.strategies import ICMP, TCP, UDP, PacketShape
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.constants import REJECT_AFTER_MESSAGES
from wgpy.dataplane import inner, rows, transport
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.engine import Engine

WALL = 1_750_000_000.0
PEERS = 4


@contextmanager
def plain_rows() -> Iterator[None]:
    """Let the engine work with `rows`, whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (transport, "runs_untrusted"),
            (transport, "open_slabs"),
            (transport, "seal_slabs"),
            (inner, "sort_rows"),
        ):
            patch.setattr(module, name, functools.partial(getattr(module, name), rows=rows))
        yield


@dataclass
class Datagram:
    octets: bytes
    remote: Endpoint
    local: str
    tos: int


class Remote:
    """One peer with its sessions, every secret in the open."""

    def __init__(self, number: int, key: PrivateKey, engine_key: PrivateKey, randbytes: Callable[[int], bytes]) -> None:
        self.number = number
        self.key = key
        self.engine_key = engine_key
        self.randbytes = randbytes
        self.sessions: list[Initiator] = []
        self.counters: list[int] = []
        self.endpoint = Endpoint("192.0.2.1", 1000 + number)

    @property
    def source(self) -> bytes:
        return bytes([10, 0, 0, self.number + 1])


class Scene:
    """Two engines in the same state, and the peers that know all keys."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        engine_key = PrivateKey(self.random.randbytes(32))
        keys = [PrivateKey(self.random.randbytes(32)) for _ in range(PEERS)]
        world = self.random.randrange(2**32)
        # AllowedIPs of the first hold those of the others: the longest prefix decides.
        prefixes = [[f"10.0.0.{n + 1}/32", f"fd00::a00:{n + 1}/128"] for n in range(PEERS)]
        prefixes[0] += ["10.0.0.0/24", "fd00::/64"]
        peers = [PeerConfig(key.public_key, allowed_ips=allowed) for key, allowed in zip(keys, prefixes, strict=True)]
        self.batched, self.single = (
            Engine(
                InterfaceConfig(engine_key, peers=peers),
                random=random.Random(world).randbytes,
                wall_clock=lambda: WALL,
            )
            for _ in range(2)
        )
        self.peers = [Remote(n, key, engine_key, self.random.randbytes) for n, key in enumerate(keys)]
        self.now = 0.0
        # Slots: 0 has previous and current, 1 current and next, 2 current only, 3 next only, with packets waiting.
        for peer, handshakes in zip(self.peers, ("cc", "cn", "c", "n"), strict=True):
            for kind in handshakes:
                self.now += 10.0
                self.shake_hands(peer, is_confirmed=kind == "c")
        for engine in (self.batched, self.single):
            engine.send_packet(PacketShape(target=self.peers[3].source, payload=b"waits").build(), self.now)
            engine.send_packet(PacketShape(target=self.peers[0].source, payload=b"at once").build(), self.now)
        self.take()

    def shake_hands(self, peer: Remote, *, is_confirmed: bool) -> None:
        forger = Initiator(peer.key, peer.engine_key.public_key, peer.randbytes, index=len(peer.sessions) * 10 + 1)
        initiation = forger.initiation(WALL + self.now)
        answers = []
        for engine in (self.batched, self.single):
            engine.receive_datagram(initiation, peer.endpoint, self.now, local="home")
            answers.append([bytes(batch.data) for batch in engine.datagrams_to_send()])
        assert answers[0] == answers[1]
        forger.accept(answers[0][-1])
        peer.sessions.append(forger)
        peer.counters.append(0)
        if is_confirmed:
            for engine in (self.batched, self.single):
                engine.receive_datagram(forger.transport(0), peer.endpoint, self.now, local="home")
            peer.counters[-1] = 1

    # --- traffic -----------------------------------------------------------------------------------------------------

    def inner_packet(self, peer: Remote, length: int) -> bytes:
        source = self.random
        other = source.choice([bytes([10, 0, 0, 2]), bytes([10, 0, 0, 77]), bytes([10, 9, 9, 9])])
        shape = PacketShape(
            protocol=source.choice([TCP, TCP, UDP, ICMP]),
            source=other if source.random() < 0.1 else peer.source,
            target=b"\x0a\0\0\xfe",
            tos=source.choice([0, 0, 1, 2, 3]),
            payload=bytes(max(0, length - 40)),
        )
        return (shape.six() if source.random() < 0.3 else shape).build()

    def train(self, peer: Remote) -> list[Datagram]:
        """What one sender puts into one grouped send, after an attacker had his hands on it."""
        source = self.random
        session = source.randrange(len(peer.sessions))
        length = source.choice([0, 28, 60, 61, 300, 1404, 1420])
        packet = self.inner_packet(peer, length) if length else b""
        tos = source.choice([0, 0, 0, 1, 2, 3])
        datagrams = []
        count = source.choice([1, 1, 2, 3, 7, 20])
        for row in range(count):
            plaintext = packet
            chance = source.random()
            if chance < 0.04:
                plaintext = source.randbytes(len(packet))
            elif chance < 0.08:
                plaintext = self.inner_packet(peer, length - source.randrange(8))
            elif chance < 0.12:
                plaintext = packet[:-1]
            if row == count - 1 and source.random() < 0.5:
                plaintext = self.inner_packet(peer, 60)[: len(packet)]
            counter = self.counter(peer, session)
            octets = bytearray(self.seal(peer.sessions[session], counter, plaintext))
            datagrams.append(self.attacked(octets))
        return [Datagram(bytes(octets), peer.endpoint, "home", tos) for octets in datagrams]

    def seal(self, session: Initiator, counter: int, plaintext: bytes) -> bytes:
        """Padded or, as some implementations have it (T19), not."""
        if self.random.random() < 0.8:
            return session.transport(counter, plaintext)
        whole = session.transport(counter, plaintext + bytes(-len(plaintext) % 16))
        return whole if not len(plaintext) % 16 else self.unpadded(session, counter, plaintext)

    def unpadded(self, session: Initiator, counter: int, plaintext: bytes) -> bytes:
        from tests.behaviours.forge import aead_seal

        assert session.keys is not None
        sealed = aead_seal(plaintext, b"", bytes(4) + counter.to_bytes(8, "little"), session.keys[0])
        return session.transport(counter)[:16] + sealed

    def counter(self, peer: Remote, session: int) -> int:
        source, following = self.random, peer.counters[session]
        match source.randrange(30):
            case 0:
                return source.randrange(following + 1)
            case 1:
                peer.counters[session] = following + 9000
                return following + 8999
            case 2:
                return source.choice([REJECT_AFTER_MESSAGES, 2**64 - 1])
            case 3:
                return max(0, following - 8128 + source.randint(-2, 2))
        peer.counters[session] = following + 1
        return following

    def attacked(self, octets: bytearray) -> bytearray:
        source = self.random
        match source.randrange(40):
            case 0:
                octets[source.randrange(8, len(octets))] ^= 1 << source.randrange(8)
            case 1:
                octets[source.randrange(4, 8)] ^= 1 << source.randrange(8)
            case 2:
                octets[source.randrange(4)] ^= 1 << source.randrange(8)
            case 3:
                del octets[source.randrange(len(octets)) :]
            case 4:
                octets = bytearray(source.randbytes(source.choice([0, 1, 31, 32, 64, 92, 148, 500])))
            case 5:
                kind, size = source.choice([(1, 148), (2, 92), (3, 64)])
                octets = bytearray([kind, 0, 0, 0]) + source.randbytes(size - 4)
        return octets

    def traffic(self) -> list[Datagram]:
        source = self.random
        datagrams = [one for _ in range(source.randint(1, 6)) for one in self.train(source.choice(self.peers))]
        if source.random() < 0.3:
            source.shuffle(datagrams)
        if source.random() < 0.3:
            datagrams += source.sample(datagrams, len(datagrams) // 3)
        return datagrams

    def batches(self, datagrams: list[Datagram]) -> list[DatagramBatch]:
        """As UDP_GRO groups them: one source, one size, the last may be shorter."""
        batches, at = [], 0
        while at < len(datagrams):
            first = datagrams[at]
            size, end = len(first.octets), at + 1
            most = self.random.choice([1, 3, 64])
            while end < len(datagrams) and end - at < most:
                one = datagrams[end]
                is_alike = (one.remote, one.local, one.tos) == (first.remote, first.local, first.tos)
                if not is_alike or not 0 < len(one.octets) <= size:
                    break
                end += 1
                if len(one.octets) < size:
                    break
            octets = b"".join(one.octets for one in datagrams[at:end])
            batches.append(DatagramBatch(bytearray(octets), size, first.remote, local=first.local, tos=first.tos))
            at = end
        return batches

    def take(self) -> tuple[dict[str, object], dict[str, object]]:
        return self.seen(self.batched), self.seen(self.single)

    def seen(self, engine: Engine) -> dict[str, object]:
        """Everything that can be seen of an engine from outside."""
        return {
            "packets": [bytes(row) for slab in engine.packets_to_deliver() for row in slab],
            "datagrams": [
                (bytes(one), batch.remote, batch.local, batch.tos)
                for batch in engine.datagrams_to_send()
                for one in batch
            ],
            "events": engine.events(),
            "deadline": engine.next_deadline(),
            "statistics": engine.statistics(),
            "state": engine.state(),
        }

    def deliver(self, datagrams: list[Datagram]) -> None:
        self.batched.receive_batches(self.batches(datagrams), self.now)
        with plain_rows():
            for one in datagrams:
                if one.tos:
                    batch = DatagramBatch(
                        bytearray(one.octets), len(one.octets), one.remote, local=one.local, tos=one.tos
                    )
                    self.single.receive_datagrams(batch, self.now)
                else:
                    self.single.receive_datagram(one.octets, one.remote, self.now, local=one.local)


REASONS = {
    DropReason.UNKNOWN_TYPE,
    DropReason.WRONG_LENGTH,
    DropReason.INVALID_MAC1,
    DropReason.COOKIE_UNEXPECTED,
    DropReason.UNKNOWN_INDEX,
    DropReason.SESSION_EXPIRED,
    DropReason.COUNTER_EXHAUSTED,
    DropReason.INVALID_TAG,
    DropReason.REPLAYED_COUNTER,
    DropReason.INNER_MALFORMED,
    DropReason.DISALLOWED_SOURCE,
}


def test_in_batches_and_one_by_one_it_is_the_same() -> None:
    reasons: set[DropReason] = set()
    delivered = answered = 0
    for seed in seeds(200):
        scene = Scene(seed)
        for call in range(8):
            scene.now += scene.random.choice([0.0, 0.001, 1.0]) if call != 5 else 155.0
            for peer in scene.peers:
                if scene.random.random() < 0.1:  # it moved; not within a call: see the next test
                    peer.endpoint = Endpoint(scene.random.choice(["198.51.100.1", "2001:db8::5"]), 5)
            datagrams = scene.traffic()
            scene.deliver(datagrams)
            batched, single = scene.take()
            for what, expected in single.items():
                assert batched[what] == expected, f"seed {seed}, call {call}: {what}"
            delivered += len(single["packets"])
            answered += len(single["datagrams"])
        reasons |= set(scene.single.statistics().drops)
    assert reasons >= REASONS, "the traffic is not mixed enough to prove anything"
    assert delivered > 10_000
    assert answered >= 1


def test_where_peers_move_within_a_call_the_last_authentic_datagram_decides() -> None:
    """Protocol notes 1.10."""
    for seed in seeds(60):
        scene = Scene(seed)
        for call in range(4):
            datagrams = scene.traffic()
            for one in datagrams:
                one.remote = Endpoint("198.51.100.1", scene.random.randint(1, 4))
            scene.deliver(datagrams)
            batched, single = scene.take()
            # How often somebody moved meanwhile, and where to answers went before, may differ; nothing else may.
            for what in ("packets", "statistics", "state", "deadline"):
                assert batched[what] == single[what], f"seed {seed}, call {call}: {what}"


def test_what_is_sealed_in_slabs_is_what_is_sealed_packet_by_packet() -> None:
    """The way out: the same packets as one slab with numpy rows, and one by one with the plain rows."""
    from wgpy.tun.memory import MemoryDevice

    for seed in seeds(60):
        scene = Scene(seed)
        source = scene.random
        for _ in range(4):
            device = MemoryDevice("m")
            packets = []
            for _ in range(source.randint(1, 6)):
                shape = PacketShape(
                    protocol=source.choice([TCP, UDP]),
                    target=bytes([10, 0, 0, source.choice([1, 2, 3, 4, 77, 200])]),
                    tos=source.choice([0, 2]),
                    payload=bytes(source.choice([0, 20, 21, 1300])),
                )
                shape = shape.six() if source.random() < 0.3 else shape
                packets += [shape.build()] * source.choice([1, 2, 30])
            device._outgoing.extend(packets)
            scene.batched.send_slabs(device.read_batch(), scene.now)
            with plain_rows():
                for packet in packets:
                    scene.single.send_packet(packet, scene.now)
            batched, single = scene.take()
            for what, expected in single.items():
                assert batched[what] == expected, f"seed {seed}: {what}"

"""Every way to refuse a packet has a name, and every name is produced here by the thing that it names.

A new member of DropReason without a scenario fails, and so does a scenario that counts something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.behaviours.forge import Initiator, with_macs
from tests.property.strategies import UDP, PacketShape, received
from wgpy.config import Endpoint, PeerConfig
from wgpy.constants import HANDSHAKE_QUEUE_SIZE, NESTED_HOPS, REJECT_AFTER_MESSAGES, UNDER_LOAD_QUEUE
from wgpy.dataplane.slab import Slab
from wgpy.errors import DropReason
from wgpy.keys import PrivateKey, PublicKey
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.protocol.shard import Forward
from wgpy.runtime.mesh import Mesh
from wgpy.runtime.udp import UdpSockets
from wgpy.testing.pair import A4, B4, Pair, packet
from wgpy.tun.memory import MemoryDevice

ROOT = Path(__file__).resolve().parent.parent
Counts: TypeAlias = Mapping[DropReason, int]
SCENARIOS: dict[DropReason, Callable[[], Counts]] = {}


def produces(reason: DropReason) -> Callable[[Callable[[], Counts]], Callable[[], Counts]]:
    def register(scenario: Callable[[], Counts]) -> Callable[[], Counts]:
        SCENARIOS[reason] = scenario
        return scenario

    return register


class Scene:
    """`b` as responder, and whoever may knock at it."""

    def __init__(self) -> None:
        self.pair = Pair(b_knows_a=True)
        self.engine = self.pair.b.engine
        self.forger = Initiator(self.pair.a_key, self.pair.b_key.public_key, self.pair.network.random.randbytes)

    def initiation(self, later: float = 0.0, **more: bytes) -> bytes:
        return self.forger.initiation(self.pair.network.wall_clock() + later, **more)

    def give(self, octets: bytes) -> None:
        self.pair.network.inject(octets, A4, B4)

    def session(self) -> Scene:
        self.give(self.initiation())
        self.forger.accept(self.pair.network.sent_by(self.pair.b, 2)[-1].octets)
        self.give(self.forger.transport(0))
        return self

    def load(self) -> Scene:
        junk = with_macs(b"\1\0\0\0" + bytes(112), self.forger.responder)
        batches = [
            DatagramBatch(bytearray(junk), 148, Endpoint("203.0.113.1", 1 + n)) for n in range(UNDER_LOAD_QUEUE + 9)
        ]
        self.engine.receive_batches(batches, self.pair.network.now)
        while self.engine.statistics().handshake_queue:
            self.engine.handle_timer(self.pair.network.now)
        self.pair.network.flush(self.pair.b)
        return self

    @property
    def drops(self) -> Counts:
        return self.engine.statistics().drops


def single(*datagrams: bytes) -> Counts:
    scene = Scene()
    for octets in datagrams:
        scene.give(octets)
    return scene.drops


def plaintext(*inner: bytes) -> Counts:
    scene = Scene().session()
    for counter, one in enumerate(inner, 1):
        scene.give(scene.forger.transport(counter, one))
    return scene.drops


@produces(DropReason.UNKNOWN_TYPE)
def _() -> Counts:
    return single(b"\5\0\0\0" + bytes(144))


@produces(DropReason.WRONG_LENGTH)
def _() -> Counts:
    return single(b"\1\0\0\0" + bytes(145))


@produces(DropReason.INTERFACE_DOWN)
def _() -> Counts:
    scene = Scene()
    scene.engine.set_up(False, scene.pair.network.now)
    scene.give(scene.initiation())
    return scene.drops


@produces(DropReason.INVALID_MAC1)
def _() -> Counts:
    return single(b"\1\0\0\0" + bytes(144))


@produces(DropReason.INVALID_MAC2)
def _() -> Counts:
    scene = Scene().load()
    scene.give(scene.initiation())
    return scene.drops


@produces(DropReason.COOKIE_WITHHELD)
def _() -> Counts:
    scene = Scene().load()
    message = scene.initiation()
    whole = DatagramBatch(bytearray(message * 20), 148, A4)
    scene.engine.receive_batches([whole], scene.pair.network.now)
    return {reason: count for reason, count in scene.drops.items() if reason is not DropReason.INVALID_MAC2}


@produces(DropReason.RATE_LIMITED)
def _() -> Counts:
    from tests.behaviours.forge import cookie_of

    scene = Scene().load()
    message = scene.initiation()
    scene.give(message)
    reply = scene.pair.network.sent_by(scene.pair.b, 3)[-1].octets
    scene.forger.cookie = cookie_of(reply, scene.forger.responder, message[-32:-16])
    for number in range(9):
        scene.give(scene.initiation(number + 1))
    return scene.drops


@produces(DropReason.HANDSHAKE_QUEUE_FULL)
def _() -> Counts:
    scene = Scene()
    junk = with_macs(b"\1\0\0\0" + bytes(112), scene.forger.responder)
    whole = DatagramBatch(bytearray(junk * (HANDSHAKE_QUEUE_SIZE + 1)), 148, A4)
    scene.engine.receive_batches([whole], scene.pair.network.now)
    return scene.drops


@produces(DropReason.LOW_ORDER_POINT)
def _() -> Counts:
    scene = Scene()
    scene.give(scene.initiation(ephemeral_public=bytes(32)))
    return scene.drops


@produces(DropReason.HANDSHAKE_UNDECRYPTABLE)
def _() -> Counts:
    scene = Scene()
    scene.give(with_macs(b"\1\0\0\0" + bytes(4) + b"\x09" + bytes(107), scene.forger.responder))
    return scene.drops


@produces(DropReason.UNKNOWN_PEER)
def _() -> Counts:
    scene = Scene()
    stranger = Initiator(PrivateKey(b"\x77" * 32), scene.forger.responder, scene.forger.random)
    scene.give(stranger.initiation(scene.pair.network.wall_clock()))
    return scene.drops


@produces(DropReason.REPLAYED_TIMESTAMP)
def _() -> Counts:
    scene = Scene()
    message = scene.initiation()
    scene.give(message)
    scene.pair.network.run(1)
    scene.give(message)
    return scene.drops


@produces(DropReason.INITIATION_FLOOD)
def _() -> Counts:
    scene = Scene()
    scene.give(scene.initiation())
    scene.give(scene.initiation(1))
    return scene.drops


@produces(DropReason.NO_SUCH_HANDSHAKE)
def _() -> Counts:
    scene = Scene()
    scene.give(with_macs(b"\2\0\0\0" + bytes(56), scene.forger.responder))
    return scene.drops


@produces(DropReason.COOKIE_UNEXPECTED)
def _() -> Counts:
    return single(b"\3\0\0\0" + bytes(60))


@produces(DropReason.COOKIE_UNDECRYPTABLE)
def _() -> Counts:
    scene = Scene()
    scene.pair.b.send(packet("10.0.0.2", "10.0.0.1"))
    index = scene.pair.network.sent_by(scene.pair.b, 1)[0].octets[4:8]
    scene.give(b"\3\0\0\0" + index + bytes(56))
    return scene.drops


@produces(DropReason.UNKNOWN_INDEX)
def _() -> Counts:
    return single(b"\4\0\0\0" + bytes(28))


@produces(DropReason.SESSION_EXPIRED)
def _() -> Counts:
    scene = Scene().session()
    scene.pair.network.run(181)
    scene.give(scene.forger.transport(1, packet()))
    return scene.drops


@produces(DropReason.COUNTER_EXHAUSTED)
def _() -> Counts:
    scene = Scene().session()
    scene.give(scene.forger.transport(REJECT_AFTER_MESSAGES))
    return scene.drops


@produces(DropReason.INVALID_TAG)
def _() -> Counts:
    scene = Scene().session()
    scene.give(scene.forger.transport(1)[:-1] + b"\0")
    scene.give(scene.forger.transport(2)[:-1] + b"\1")
    return scene.drops


@produces(DropReason.REPLAYED_COUNTER)
def _() -> Counts:
    scene = Scene().session()
    scene.give(scene.forger.transport(0))
    return scene.drops


@produces(DropReason.INNER_MALFORMED)
def _() -> Counts:
    return plaintext(b"\x45" + bytes(30))


@produces(DropReason.DISALLOWED_SOURCE)
def _() -> Counts:
    return plaintext(packet("10.9.9.9"))


@produces(DropReason.NO_PEER_FOR_DESTINATION)
def _() -> Counts:
    scene = Scene()
    scene.pair.b.send(packet("10.0.0.2", "10.7.7.7"))
    return scene.drops


@produces(DropReason.NO_ENDPOINT)
def _() -> Counts:
    scene = Scene()
    nowhere = PeerConfig(PublicKey(b"\x55" * 32), allowed_ips=["10.0.0.5/32"])
    scene.engine.add_peer(nowhere, scene.pair.network.now)
    scene.pair.b.send(packet("10.0.0.2", "10.0.0.5"))
    return scene.drops


@produces(DropReason.STAGING_OVERFLOW)
def _() -> Counts:
    scene = Scene()
    scene.pair.b.send(*[packet("10.0.0.2", "10.0.0.1")] * 129)
    return scene.drops


@produces(DropReason.STAGING_FLUSHED)
def _() -> Counts:
    scene = Scene()
    scene.pair.b.send(packet("10.0.0.2", "10.0.0.1"))
    scene.engine.set_up(False, scene.pair.network.now)
    return scene.drops


@produces(DropReason.DATAGRAM_TOO_LARGE)
def _() -> Counts:
    scene = Scene().session()
    scene.engine.set_mtu(65503)
    scene.pair.b.send(
        PacketShape(protocol=UDP, source=b"\x0a\0\0\2", target=b"\x0a\0\0\1", payload=bytes(65470)).build()
    )
    return scene.drops


@produces(DropReason.ROUTING_LOOP)
def _() -> Counts:
    scene = Scene().session()
    looped = PacketShape(
        protocol=UDP, source=b"\x0a\0\0\2", target=b"\x0a\0\0\1", payload=b"\4\0\0\0" + bytes(60), ttl=NESTED_HOPS
    )
    scene.pair.b.send(looped.build())
    return scene.drops


@produces(DropReason.NO_SOCKET_FOR_FAMILY)
def _() -> Counts:
    return refused(is_missing=True)


@produces(DropReason.SEND_FAILED)
def _() -> Counts:
    return refused(is_missing=False)


@produces(DropReason.NO_ROOM_AT_WORKER)
def _() -> Counts:
    """A mesh whose sockets are gone has no room."""
    scene = Scene()
    first, second = Mesh.create(2)
    forwards = [Forward(1, Slab.of_packet(packet("10.0.0.1", "10.0.0.2"), 1420))]
    second.close()
    scene.engine.count_drop(DropReason.NO_ROOM_AT_WORKER, first.send(forwards))
    first.close()
    return scene.drops


def refused(*, is_missing: bool) -> Counts:
    """The sockets report, and the engine counts."""
    scene = Scene()
    scene.pair.b.engine.send_packet(packet("10.0.0.2", "10.0.0.1"), scene.pair.network.now)
    batches = scene.engine.datagrams_to_send()
    sockets = UdpSockets()
    sockets.close()
    if not is_missing:
        sockets = UdpSockets()
        assert sockets.v4 is not None
        sockets.v4.socket.close()
    sockets.send(batches)
    for failure in sockets.failures:
        scene.engine.send_failed(failure.batch, failure.reason)
    sockets.close()
    return scene.drops


@produces(DropReason.BAD_OFFLOAD_HEADER)
def _() -> Counts:
    from tests.tun.test_linux import Wire

    wire = Wire()
    wire.give(b"\1\7" + bytes(8), packet())
    wire.tun.read_batch()
    wire.tun.close()
    wire.kernel.close()
    return wire.tun.drops


@produces(DropReason.TUN_WRITE_FAILED)
def _() -> Counts:
    device = MemoryDevice("m", limit=1)
    device.write_batch([received([packet(), packet()])])
    return device.drops


@produces(DropReason.NOT_ADMITTED)
def _() -> Counts:
    from tests.tun.test_linux import Wire

    wire = Wire()
    wire.tun.admits = lambda packet: False
    wire.tun.write_batch([received([packet()])])
    wire.tun.close()
    wire.kernel.close()
    return wire.tun.drops


@pytest.mark.parametrize("reason", DropReason, ids=lambda reason: reason.name)
def test_every_reason_is_produced_by_what_it_names(reason: DropReason) -> None:
    if reason not in SCENARIOS:
        # The userspace stack counts its own; its tests name them.
        folders = (ROOT / name for name in ("netstack", "runtime", "wire"))
        texts = (path.read_text() for folder in folders for path in folder.rglob("test_*.py"))
        assert any(f"DropReason.{reason.name}" in text for text in texts), f"{reason.name} needs a scenario"
        return
    counted = SCENARIOS[reason]()
    assert counted[reason] >= 1
    # The load that some need to begin with counts itself too.
    if reason not in (DropReason.INVALID_MAC2, DropReason.RATE_LIMITED, DropReason.HANDSHAKE_QUEUE_FULL):
        assert set(counted) == {reason}

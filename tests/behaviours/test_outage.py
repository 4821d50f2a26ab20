"""An outage of the path between two peers ends for the connections inside the tunnel when it ends for the tunnel."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tests.netstack.hosts import arriving, without_padding
from wgpy.netstack.stack import Stack
from wgpy.netstack.tcp.connection import TcpConnection
from wgpy.protocol.events import HandshakeCompleted, SilenceEnded
from wgpy.testing.network import Host
from wgpy.testing.pair import Pair


class Joined:
    """Two stacks, each behind its engine, and the network between the engines: all in virtual time."""

    def __init__(self, *, resumes: bool = True) -> None:
        self.pair = Pair(b_knows_a=True)
        self.network = self.pair.network
        randbytes = self.network.random.randbytes
        self.a = Stack(addresses=["10.0.0.1"], mtu=1420, random=randbytes)
        self.b = Stack(addresses=["10.0.0.2"], mtu=1420, random=randbytes)
        self.sides: list[tuple[Stack, Host]] = [(self.a, self.pair.a), (self.b, self.pair.b)]
        self.resumes = resumes
        self.seen = [0, 0]
        for stack, host in self.sides:
            stack.may_send = host.engine.may_send

    @property
    def now(self) -> float:
        return self.network.now

    def connect(self) -> tuple[TcpConnection, TcpConnection]:
        listener = self.b.listen_tcp(80)
        connection = self.a.connect_tcp(("10.0.0.2", 80), self.now)
        self.run_until(lambda: listener.is_readable)
        accepted = listener.accept()
        assert accepted is not None
        return connection, accepted

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.run_until(lambda: self.now >= end)

    def run_until(self, is_reached: Callable[[], bool], limit: float = 600.0) -> float:
        """Let time pass until something is so; says how long it took."""
        begin = self.now
        while not is_reached():
            assert self.now - begin < limit, "it did not come to be so in time"
            for number, (stack, host) in enumerate(self.sides):
                stack.handle_timer(self.now)
                for slab in stack.emit(self.now, 1024):
                    for row in slab:
                        host.send(without_padding(row))
                self.network.flush(host)
                for event in host.events[self.seen[number] :]:
                    if self.resumes and isinstance(event, SilenceEnded):
                        engine = host.engine
                        stack.resume(lambda address, e=engine, p=event.peer: e.owner_of(address) == p, self.now)
                self.seen[number] = len(host.events)
            waits = [stack.next_deadline() or math.inf for stack, _ in self.sides]
            self.network.run(max(min(min(waits) - self.now, 0.01), 0.001))
            for stack, host in self.sides:
                stack.receive([arriving(packet) for packet in host.received], self.now)
                host.received.clear()
        return self.now - begin

    def block(self) -> None:
        self.network.drop = lambda datagram: True

    def unblock(self) -> None:
        self.network.drop = None


def after_an_outage(joined: Joined, writer: TcpConnection, reader: TcpConnection, seconds: float) -> float:
    """How long a line takes that was written during an outage, from the first datagram that gets through."""
    joined.block()
    writer.write(b"a line", joined.now)
    joined.run(seconds)
    joined.unblock()
    through = len(joined.network.tap)
    joined.run_until(lambda: any(not one.is_lost for one in joined.network.tap[through:]))
    return joined.run_until(lambda: reader.is_readable)


@pytest.mark.parametrize("seconds", [40.0, 80.0, 121.0])
@pytest.mark.parametrize("is_upload", [True, False])
def test_what_was_sent_during_an_outage_arrives_when_the_tunnel_is_back(seconds: float, is_upload: bool) -> None:
    joined = Joined()
    one, other = joined.connect()
    writer, reader = (one, other) if is_upload else (other, one)
    assert after_an_outage(joined, writer, reader, seconds) < 1.0
    assert reader.read(100, joined.now) == b"a line"
    assert writer.sender.cubic.cwnd < 3 * writer.sender.payload, "it begins with care after a timeout (RFC 5681 3.1)"


def test_without_word_of_the_tunnel_it_would_wait_for_its_timer() -> None:
    """The outage is long enough to mean something: this is what `Stack.resume` is for."""
    joined = Joined(resumes=False)
    one, other = joined.connect()
    assert after_an_outage(joined, one, other, 80.0) > 5.0


def test_many_connections_resume_in_turn_and_each_once() -> None:
    joined = Joined()
    listener = joined.b.listen_tcp(81, backlog=1000)
    crowd = [joined.a.connect_tcp(("10.0.0.2", 81), joined.now) for _ in range(200)]
    joined.run_until(lambda: joined.b.statistics().opened == len(crowd))
    accepted = [listener.accept() for _ in crowd]
    joined.block()
    for one in crowd:
        one.write(b"a line", joined.now)
    joined.run(80)
    joined.unblock()
    before = joined.a.statistics().segments_retransmitted
    begin = len(joined.network.tap)
    joined.run_until(lambda: all(one is not None and one.is_readable for one in accepted))
    assert joined.a.statistics().segments_retransmitted - before <= 2 * len(crowd)
    times = [one.time for one in joined.network.tap[begin:] if len(one.octets) > 80]
    assert max(times) - min(times) > 0.1, "no burst"


def test_a_handshake_in_a_tunnel_that_was_never_silent_resumes_nothing() -> None:
    """A host behind the peer that died is not to be asked more often because the peer is well."""
    pair = Pair()
    pair.shake_hands()
    for _ in range(30):
        pair.exchange()
        pair.network.run(10)
    for host in (pair.a, pair.b):
        assert sum(isinstance(event, HandshakeCompleted) for event in host.events) > 1
        assert not any(isinstance(event, SilenceEnded) for event in host.events)


def test_a_peer_that_was_silent_and_answers_is_told_of_once() -> None:
    pair = Pair()
    pair.shake_hands()
    pair.network.loss = 1.0
    pair.exchange()
    pair.network.run(30)
    pair.network.loss = 0.0
    pair.network.run(30)
    assert pair.exchange()
    assert sum(isinstance(event, SilenceEnded) for event in pair.a.events) == 1


def test_an_address_has_one_owner() -> None:
    pair = Pair()
    assert pair.a.engine.owner_of(bytes([10, 0, 0, 2])) == pair.b_key.public_key
    assert pair.a.engine.owner_of(bytes([10, 0, 0, 3])) is None

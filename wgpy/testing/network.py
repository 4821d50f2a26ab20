"""A network that exists only in memory: virtual time, seeded trouble, and a wiretap.

    Host.send -> Engine -> Network (loss, delay, repetition, reordering; the tap) -> Engine -> Host.received

Nothing here waits: `run` advances the clock from event to event, so that three minutes of protocol take milliseconds,
and the same seed gives the same run, octet by octet.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from wgpy.protocol.datagrams import DatagramBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.config import Endpoint
    from wgpy.protocol.engine import Engine
    from wgpy.protocol.events import Event

__all__ = ["Datagram", "Host", "Network"]


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram as the wiretap saw it.

    Attributes:
        time: when it left, seconds.
        source: where it came from.
        target: where it was sent to.
        octets: UDP payload.
        is_lost: it never arrives.
    """

    time: float
    source: Endpoint
    target: Endpoint
    octets: bytes
    is_lost: bool

    @property
    def kind(self) -> int:
        """The message type: 1 initiation, 2 response, 3 cookie reply, 4 transport data."""
        return self.octets[0] if self.octets else 0


class Host:
    """An engine with its place in the network.

    Attributes:
        engine: the protocol.
        endpoints: where it can be reached: one per address family is enough. The first of a family is where its
            datagrams come from, unless the engine answers from another one.
        received: inner packets, in order.
        events: what the engine told.
    """

    def __init__(self, network: Network, engine: Engine, endpoints: list[Endpoint]) -> None:
        """Use `Network.attach`."""
        self._network = network
        self.engine = engine
        self.endpoints = endpoints
        self.received: list[bytes] = []
        self.events: list[Event] = []

    def send(self, *packets: bytes) -> None:
        """Hand inner packets to the engine."""
        for packet in packets:
            self.engine.send_packet(packet, self._network.now)
        self._network.flush(self)

    def move(self, *endpoints: Endpoint) -> None:
        """Be somewhere else from now on."""
        self.endpoints = list(endpoints)

    def do(self, verb: Callable[..., object], *arguments: object) -> None:
        """Call a verb of the engine with the time, and send what comes of it."""
        verb(*arguments, self._network.now)
        self._network.flush(self)

    def source_for(self, batch: DatagramBatch) -> Endpoint:
        """The endpoint that a datagram comes from."""
        if batch.local in self.endpoints:
            return batch.local  # type: ignore[return-value] # the network hands endpoints in as local addresses
        return next(one for one in self.endpoints if one.version == batch.remote.version)


@dataclass
class Network:
    """Hosts, and what happens between them.

    Attributes:
        seed: of everything that is random.
        delay: seconds, one way.
        jitter: up to so many seconds more: datagrams overtake each other.
        loss: probability.
        repeats: probability that a datagram arrives twice.
        drop: further datagrams to lose, decided by the test.
        now: virtual time, seconds.
        tap: every datagram that was sent.
    """

    seed: int = 1
    delay: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    repeats: float = 0.0
    drop: Callable[[Datagram], bool] | None = None
    now: float = 1000.0
    tap: list[Datagram] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Seed the trouble."""
        self.random = random.Random(self.seed)
        self._hosts: list[Host] = []
        self._under_way: list[tuple[float, int, Datagram]] = []
        self._numbers = count()

    def wall_clock(self) -> float:
        """Unix seconds: a fixed day, moving with the virtual time. Tests replace it to step it."""
        return 1_750_000_000.0 + self.now

    def attach(self, engine: Engine, *endpoints: Endpoint) -> Host:
        """Connect an engine."""
        host = Host(self, engine, list(endpoints))
        self._hosts.append(host)
        return host

    def inject(self, octets: bytes, source: Endpoint, target: Endpoint) -> None:
        """Deliver a datagram of the test's own making at once."""
        self._deliver(Datagram(self.now, source, target, octets, False))

    def flush(self, host: Host) -> None:
        """Take out what an engine has to say."""
        for batch in host.engine.datagrams_to_send():
            for octets in batch:
                self._send(host.source_for(batch), batch.remote, bytes(octets))
        host.received += (bytes(row) for slab in host.engine.packets_to_deliver() for row in slab)
        host.events += host.engine.events()

    def _send(self, source: Endpoint, target: Endpoint, octets: bytes) -> None:
        datagram = Datagram(self.now, source, target, octets, self.random.random() < self.loss)
        if self.drop is not None and not datagram.is_lost and self.drop(datagram):
            datagram = Datagram(self.now, source, target, octets, True)
        self.tap.append(datagram)
        if datagram.is_lost:
            return
        for _ in range(2 if self.random.random() < self.repeats else 1):
            arrival = self.now + self.delay + self.random.random() * self.jitter
            heapq.heappush(self._under_way, (arrival, next(self._numbers), datagram))

    def _deliver(self, datagram: Datagram) -> None:
        for host in self._hosts:
            if datagram.target in host.endpoints:
                batch = DatagramBatch(
                    bytearray(datagram.octets), len(datagram.octets), datagram.source, local=datagram.target
                )
                host.engine.receive_datagrams(batch, self.now)
                self.flush(host)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, is_reached: Callable[[], bool], limit: float = 30.0) -> bool:
        """Let time pass until something is so: whether it became so within the limit."""
        end = self.now + limit
        while not is_reached():
            moments = [host.engine.next_deadline() for host in self._hosts]
            moments.append(self._under_way[0][0] if self._under_way else None)
            moment = min((one for one in moments if one is not None), default=math.inf)
            if moment > end:
                self.now = end
                return is_reached()
            self.now = max(self.now, moment)
            while self._under_way and self._under_way[0][0] <= self.now:
                self._deliver(heapq.heappop(self._under_way)[2])
            for host in self._hosts:
                deadline = host.engine.next_deadline()
                if deadline is not None and deadline <= self.now:
                    host.engine.handle_timer(self.now)
                    self.flush(host)
        return True

    def sent_by(self, host: Host, kind: int | None = None, *, since: float = 0.0) -> list[Datagram]:
        """What the tap saw from a host's present endpoints: all of it, or one message type."""
        return [
            one for one in self.tap if one.source in host.endpoints and one.time >= since and kind in (None, one.kind)
        ]

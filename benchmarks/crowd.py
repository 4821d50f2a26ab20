"""A hub and a crowd of clients in memory, on virtual time: the engine under test is the hub.

    clients ── all at once ──> hub, whose clock runs by the CPU time that it spends

While the hub works, virtual time passes as slowly as a core of its own would let it; while it has nothing to do, time
leaps to the next moment at which anybody has. What the clients cost is not counted.
"""

from __future__ import annotations

import heapq
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import wgpy
from benchmarks.clock import Stopwatch

HUB_AT: Final = wgpy.Endpoint("192.0.2.1", 51820)
# As many as the reader of a socket hands over at once; see runtime.udp.
_BURST: Final = 64
_GIVE_UP_AFTER: Final = 600.0
_WALL: Final = 1_750_000_000.0
KEEPALIVE: Final = 25


def make_engine(config: wgpy.InterfaceConfig, *, is_up: bool = True) -> wgpy.Engine:
    """An engine with true randomness."""
    return wgpy.Engine(config, random=secrets.token_bytes, wall_clock=lambda: _WALL, is_up=is_up)


def inner_address(number: int) -> str:
    """The inner address of a client of that number, below 2**24."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


@dataclass(slots=True)
class Client:
    """One of the crowd.

    Attributes:
        engine: its engine.
        at: its endpoint.
        is_connected: it has had a session.
        wakes_at: the earliest moment in the agenda at which it is looked at.
    """

    engine: wgpy.Engine
    at: wgpy.Endpoint
    is_connected: bool = False
    wakes_at: float = math.inf


@dataclass(slots=True)
class Crowd:
    """A hub and its clients.

    Attributes:
        hub: the engine under test.
        clients: by their endpoint.
        hub_initiates: who comes up at the start and knocks.
        now: virtual seconds.
        watch: CPU time of the hub.
        waiting: clients that never had a session.
    """

    hub: wgpy.Engine
    clients: dict[wgpy.Endpoint, Client]
    hub_initiates: bool
    now: float = 1000.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    waiting: int = 0
    _agenda: list[tuple[float, int, Client]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _arrived: list[wgpy.DatagramBatch] = field(default_factory=list)

    def start(self) -> None:
        """Whoever was down comes up, at the same moment."""
        self.waiting = len(self.clients)
        if self.hub_initiates:
            with self.watch:
                self.hub.set_up(True, self.now)
        for client in self.clients.values():
            if not self.hub_initiates:
                client.engine.set_up(True, self.now)
            self._listen_to(client)

    def run_until_all_connected(self) -> float:
        """Until every client has had a session; the virtual seconds that it took."""
        began = self.now
        self._run(lambda: self.waiting == 0, began + _GIVE_UP_AFTER)
        assert not self.waiting, f"{self.waiting} clients never got a session"
        return self.now - began

    def run_for(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        self._run(lambda: self.now >= end, end)

    def _run(self, is_reached: Callable[[], bool], end: float) -> None:
        while not is_reached() and self.now < end:
            self._wake_clients()
            burst, self._arrived = self._arrived[:_BURST], self._arrived[_BURST:]
            deadline = self.hub.next_deadline()
            if not burst and (deadline is None or deadline > self.now):
                moments = [end if deadline is None else deadline, self._agenda[0][0] if self._agenda else end]
                self.now = min(end, max(self.now, min(moments)))
                continue
            with self.watch:
                if burst:
                    self.hub.receive_batches(burst, self.now)
                if deadline is not None and deadline <= self.now:
                    self.hub.handle_timer(self.now)
                sent = self.hub.datagrams_to_send()
                self.hub.packets_to_deliver()
                self.hub.events()
            self.now += self.watch.last
            for batch in sent:
                client = self.clients[batch.remote]
                client.engine.receive_datagrams(batch.arriving_from(HUB_AT), self.now)
                self._listen_to(client)

    def _wake_clients(self) -> None:
        while self._agenda and self._agenda[0][0] <= self.now:
            client = heapq.heappop(self._agenda)[2]
            client.wakes_at = math.inf
            client.engine.handle_timer(self.now)
            self._listen_to(client)

    def _listen_to(self, client: Client) -> None:
        """Carry what a client says to the hub, and note when it wants to speak again."""
        self._arrived += (batch.arriving_from(client.at) for batch in client.engine.datagrams_to_send())
        client.engine.packets_to_deliver()
        events = client.engine.events()
        if not client.is_connected and any(isinstance(event, wgpy.HandshakeCompleted) for event in events):
            client.is_connected = True
            self.waiting -= 1
        deadline = client.engine.next_deadline()
        if deadline is not None and deadline < client.wakes_at:
            client.wakes_at = deadline
            heapq.heappush(self._agenda, (deadline, next(self._numbers), client))


def make_crowd(peers: int, *, hub_initiates: bool) -> Crowd:
    """Clients and hub; whoever is to initiate is down, and has a persistent keepalive that makes it knock."""
    hub_key = wgpy.PrivateKey.generate()
    clients: dict[wgpy.Endpoint, Client] = {}
    hub_peers = []
    for number in range(peers):
        key = wgpy.PrivateKey.generate()
        at = wgpy.Endpoint(f"198.18.{number >> 8 & 255}.{number & 255}", 1024 + (number >> 16))
        to_hub = wgpy.PeerConfig(
            hub_key.public_key,
            allowed_ips=["0.0.0.0/0"],
            endpoint=HUB_AT,
            persistent_keepalive=0 if hub_initiates else KEEPALIVE,
        )
        clients[at] = Client(make_engine(wgpy.InterfaceConfig(key, peers=[to_hub]), is_up=hub_initiates), at)
        to_client = wgpy.PeerConfig(
            key.public_key,
            allowed_ips=[f"{inner_address(number)}/32"],
            endpoint=at if hub_initiates else None,
            persistent_keepalive=KEEPALIVE if hub_initiates else 0,
        )
        hub_peers.append(to_client)
    hub = make_engine(wgpy.InterfaceConfig(hub_key, peers=hub_peers), is_up=not hub_initiates)
    return Crowd(hub, clients, hub_initiates)

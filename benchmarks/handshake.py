"""Handshakes of the engine, in memory, on one core: alone, in a storm, and what is refused at the door.

Rates are per second of CPU time of the engine under test; what its counterparts cost is left out.

    storm:  10,000 clients ── all at once ──> hub, whose clock runs by the CPU time that it spends

In the storm a client that is not answered tries again as the whitepaper says, after five seconds and some jitter, with
a cookie if it got one. The storm is over when every client has a session.
"""

from __future__ import annotations

import argparse
import heapq
import secrets
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import wgpy
from benchmarks import host
from benchmarks.clock import Stopwatch
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from wgpy.testing.pair import packet

_HUB_AT: Final = wgpy.Endpoint("192.0.2.1", 51820)
_CLIENT_AT: Final = wgpy.Endpoint("192.0.2.2", 51820)
# As many as the reader of a socket hands over at once; see runtime.udp.
_BURST: Final = 64
# Longer than REJECT_AFTER_TIME: nothing of the session before is left.
_APART: Final = 200.0
_GIVE_UP_AFTER: Final = 600.0
_WALL: Final = 1_750_000_000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks handshake`."""
    parser.add_argument("--peers", type=int, default=10_000, metavar="N", help="clients in the storm (10000)")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="repetitions of everything else (1000)")


def run(options: argparse.Namespace) -> Result:
    """Measure."""
    result = Result("handshake", host.describe())
    result.options = {"rounds": options.rounds, "peers": options.peers, "count": options.count}
    progress = Progress(options.rounds * 5)
    try:
        for number in range(options.rounds):
            single(result, options.count, progress, number)
            refusals(result, options.count, progress, number)
            for hub_initiates in (False, True):
                progress.show(f"round {number + 1}: storm, the hub {'initiates' if hub_initiates else 'responds'}")
                storm(result, options.peers, hub_initiates=hub_initiates)
                progress.step()
    finally:
        progress.close()
    result.note("per second of CPU time on one core; the other end's work is not counted")
    return result


# --- one pair --------------------------------------------------------------------------------------------------------


def make_engine(config: wgpy.InterfaceConfig) -> wgpy.Engine:
    """An engine with true randomness."""
    return wgpy.Engine(config, random=secrets.token_bytes, wall_clock=lambda: _WALL)


def make_pair() -> tuple[wgpy.Engine, wgpy.Engine]:
    """Two engines that know each other: initiator and responder."""
    here, there = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_there = wgpy.PeerConfig(there.public_key, allowed_ips=["10.0.0.2/32"], endpoint=_HUB_AT)
    to_here = wgpy.PeerConfig(here.public_key, allowed_ips=["10.0.0.1/32"])
    return (
        make_engine(wgpy.InterfaceConfig(here, peers=[to_there])),
        make_engine(wgpy.InterfaceConfig(there, peers=[to_here])),
    )


def single(result: Result, repetitions: int, progress: Progress, number: int) -> None:
    """Full handshakes one after another: initiation, response, first data, and the packet delivered."""
    progress.show(f"round {number + 1}: handshakes one by one")
    initiator, responder = make_pair()
    initiating, responding = Stopwatch(), Stopwatch()
    data = packet()
    for repetition in range(repetitions):
        now = 1000.0 + repetition * _APART
        with initiating:
            initiator.send_packet(data, now)
            initiation = initiator.datagrams_to_send()
        with responding:
            responder.receive_batches([batch.arriving_from(_CLIENT_AT) for batch in initiation], now)
            response = responder.datagrams_to_send()
        with initiating:
            initiator.receive_batches([batch.arriving_from(_HUB_AT) for batch in response], now)
            first_data = initiator.datagrams_to_send()
        with responding:
            responder.receive_batches([batch.arriving_from(_CLIENT_AT) for batch in first_data], now)
            delivered = responder.packets_to_deliver()
        assert len(delivered) == 1, "every handshake ends with the packet that asked for it"
        initiator.events()
        responder.events()
    group = "one after another"
    for key, label, watch in (("initiator", "initiator", initiating), ("responder", "responder", responding)):
        result.row(f"single/{key}", label, "handshakes/s", group=group).add(OURS, repetitions / watch.seconds)
    progress.step()


# --- refusals --------------------------------------------------------------------------------------------------------


def refusals(result: Result, repetitions: int, progress: Progress, number: int) -> None:
    """What a flood costs: a wrong mac1, and a cookie reply to a right one under load."""
    progress.show(f"round {number + 1}: refusals")
    initiator, responder = make_pair()
    initiator.send_packet(packet(), 1000.0)
    initiation = bytes(initiator.datagrams_to_send()[0].data)
    forged = initiation[:-32] + bytes(32)
    for grouped in (1, 32):
        watch = Stopwatch()
        for _ in range(repetitions):
            batches = [wgpy.DatagramBatch(bytearray(forged * grouped), len(forged), _CLIENT_AT)]
            with watch:
                responder.receive_batches(batches, 1000.0)
        drops = responder.statistics().drops
        label = "wrong mac1, alone" if grouped == 1 else f"wrong mac1, {grouped} in one GRO read"
        rate = repetitions * grouped / watch.seconds
        result.row(f"refused/mac1/{grouped}", label, "messages/s", group="refused at the door").add(OURS, rate)
    assert drops[wgpy.DropReason.INVALID_MAC1] == repetitions * 33, "every forged message was counted"
    progress.step()
    replies, watch = 0, Stopwatch()
    while replies < repetitions:
        # More than an eighth of the queue waits: the responder is under load from the first call.
        batches = [wgpy.DatagramBatch(bytearray(initiation), len(initiation), _CLIENT_AT) for _ in range(4 * _BURST)]
        with watch:
            responder.receive_batches(batches, 1000.0)
            while (deadline := responder.next_deadline()) is not None and deadline <= 1000.0:
                responder.handle_timer(1000.0)
            sent = responder.datagrams_to_send()
        replies += sum(batch.data[0] == 3 for batch in sent)
    rate = replies / watch.seconds
    result.row("refused/cookie", "cookie replies", "messages/s", group="refused at the door").add(OURS, rate)
    progress.step()


# --- the storm -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Client:
    """One client of the storm."""

    engine: wgpy.Engine
    at: wgpy.Endpoint
    is_done: bool = False


@dataclass(slots=True)
class Storm:
    """A hub and its clients on virtual time.

    Attributes:
        hub: the engine under test.
        clients: by their endpoint.
        now: virtual seconds; grows by the CPU time of the hub, and by leaps while the hub has nothing to do.
        watch: CPU time of the hub.
        waiting: clients without a session.
    """

    hub: wgpy.Engine
    clients: dict[wgpy.Endpoint, Client]
    now: float = 1000.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    waiting: int = 0
    _agenda: list[tuple[float, int, Client]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _arrived: list[wgpy.DatagramBatch] = field(default_factory=list)

    def start(self, *, hub_initiates: bool) -> None:
        """Everyone wants to talk, now."""
        self.waiting = len(self.clients)
        if hub_initiates:
            with self.watch:
                self.hub.set_up(True, self.now)
        else:
            for client in self.clients.values():
                client.engine.set_up(True, self.now)
        for client in self.clients.values():
            self._listen_to(client)

    def run(self) -> float:
        """Until every client has its session; the virtual seconds that it took."""
        began = self.now
        while self.waiting:
            assert self.now - began < _GIVE_UP_AFTER, f"{self.waiting} clients never got a session"
            self._wake_clients()
            burst, self._arrived = self._arrived[:_BURST], self._arrived[_BURST:]
            deadline = self.hub.next_deadline()
            if not burst and (deadline is None or deadline > self.now):
                self._leap(deadline)
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
                client.engine.receive_datagrams(batch.arriving_from(_HUB_AT), self.now)
                self._listen_to(client)
        return self.now - began

    def _leap(self, deadline: float | None) -> None:
        moments = [moment for moment in (deadline, self._agenda[0][0] if self._agenda else None) if moment is not None]
        assert moments, "somebody waits, and nobody has anything to do"
        self.now = max(self.now, min(moments))

    def _wake_clients(self) -> None:
        while self._agenda and self._agenda[0][0] <= self.now:
            client = heapq.heappop(self._agenda)[2]
            client.engine.handle_timer(self.now)
            self._listen_to(client)

    def _listen_to(self, client: Client) -> None:
        """Carry what a client says to the hub, and note when it wants to speak again."""
        self._arrived += (batch.arriving_from(client.at) for batch in client.engine.datagrams_to_send())
        if not client.is_done and any(isinstance(e, wgpy.HandshakeCompleted) for e in client.engine.events()):
            client.is_done = True
            self.waiting -= 1
        deadline = client.engine.next_deadline()
        if deadline is not None and not client.is_done:
            heapq.heappush(self._agenda, (deadline, next(self._numbers), client))


def make_storm(peers: int, *, hub_initiates: bool) -> Storm:
    """Clients and hub, all down. Whoever initiates has a persistent keepalive, so that coming up makes it knock."""
    hub_key = wgpy.PrivateKey.generate()
    clients: dict[wgpy.Endpoint, Client] = {}
    hub_peers = []
    for number in range(peers):
        key = wgpy.PrivateKey.generate()
        at = wgpy.Endpoint(f"198.18.{number >> 8 & 255}.{number & 255}", 1024 + (number >> 16))
        to_hub = wgpy.PeerConfig(
            hub_key.public_key,
            allowed_ips=["0.0.0.0/0"],
            endpoint=_HUB_AT,
            persistent_keepalive=0 if hub_initiates else 25,
        )
        config = wgpy.InterfaceConfig(key, peers=[to_hub])
        engine = wgpy.Engine(config, random=secrets.token_bytes, wall_clock=lambda: _WALL, is_up=hub_initiates)
        clients[at] = Client(engine, at)
        inner = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"
        hub_peers.append(
            wgpy.PeerConfig(
                key.public_key,
                allowed_ips=[inner],
                endpoint=at if hub_initiates else None,
                persistent_keepalive=25 if hub_initiates else 0,
            )
        )
    hub = wgpy.Engine(
        wgpy.InterfaceConfig(hub_key, peers=hub_peers),
        random=secrets.token_bytes,
        wall_clock=lambda: _WALL,
        is_up=not hub_initiates,
    )
    return Storm(hub, clients)


def storm(result: Result, peers: int, *, hub_initiates: bool) -> None:
    """One storm."""
    arranged = make_storm(peers, hub_initiates=hub_initiates)
    arranged.start(hub_initiates=hub_initiates)
    took = arranged.run()
    role = "initiator" if hub_initiates else "responder"
    group = f"storm, {peers:,} peers at once"
    watch = arranged.watch
    key = f"storm/{role}"
    result.row(f"{key}/rate", f"{role}", "handshakes/s", group=group).add(OURS, peers / watch.seconds)
    row = result.row(f"{key}/time", f"{role}: until all have a session", "s", is_more_better=False, group=group)
    row.add(OURS, took)
    row = result.row(f"{key}/cpu", f"{role}: of it CPU time", "s", is_more_better=False, group=group)
    row.add(OURS, watch.seconds)

"""Handshakes of the engine, in memory, on one core: alone, in a storm, and what is refused at the door.

Rates are per second of CPU time of the engine under test; what its counterparts cost is left out.

    storm:  10,000 clients ── all at once ──> hub, whose clock runs by the CPU time that it spends

In the storm a client that is not answered tries again as the whitepaper says, after five seconds and some jitter, with
a cookie if it got one. The storm is over when every client has a session.
"""

from __future__ import annotations

import argparse
from typing import Final

import wgpy
from benchmarks import host
from benchmarks.clock import Stopwatch
from benchmarks.crowd import HUB_AT, make_crowd, make_engine
from benchmarks.report import Progress
from benchmarks.samples import OURS, Result
from wgpy.testing.pair import packet

_CLIENT_AT: Final = wgpy.Endpoint("192.0.2.2", 51820)
# Longer than REJECT_AFTER_TIME: nothing of the session before is left.
_APART: Final = 200.0


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


def make_pair() -> tuple[wgpy.Engine, wgpy.Engine]:
    """Two engines that know each other: initiator and responder."""
    here, there = wgpy.PrivateKey.generate(), wgpy.PrivateKey.generate()
    to_there = wgpy.PeerConfig(there.public_key, allowed_ips=["10.0.0.2/32"], endpoint=HUB_AT)
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
            initiator.receive_batches([batch.arriving_from(HUB_AT) for batch in response], now)
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
        batches = [wgpy.DatagramBatch(bytearray(initiation), len(initiation), _CLIENT_AT) for _ in range(256)]
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


def storm(result: Result, peers: int, *, hub_initiates: bool) -> None:
    """One storm."""
    crowd = make_crowd(peers, hub_initiates=hub_initiates)
    crowd.start()
    took = crowd.run_until_all_connected()
    role = "initiator" if hub_initiates else "responder"
    group = f"storm, {peers:,} peers at once"
    key = f"storm/{role}"
    result.row(f"{key}/rate", f"{role}", "handshakes/s", group=group).add(OURS, peers / crowd.watch.seconds)
    row = result.row(f"{key}/time", f"{role}: until all have a session", "s", is_more_better=False, group=group)
    row.add(OURS, took)
    row = result.row(f"{key}/cpu", f"{role}: of it CPU time", "s", is_more_better=False, group=group)
    row.add(OURS, crowd.watch.seconds)

"""The userspace stack alone: two stacks in memory, one TCP stream, what each side costs in CPU time.

Rows go from one stack to the other as they are, without WireGuard and without sockets; `dataplane.inner` trims them in
between and is counted for nobody. The rates say what one core would do if it did nothing but send, or but receive.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from wgpy.dataplane import selected
from wgpy.dataplane.inner import sort_rows
from wgpy.netstack.stack import Stack

__all__ = ["Result", "connects_per_second", "measure"]

_BUDGET = 192


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave.

    Attributes:
        send_mbit: payload per second of CPU time of the sending side, Mbit/s; `receive_mbit` of the receiving one.
        packets: from the sender.
        acknowledgements: from the receiver.
        retransmits: segments sent again; none is expected.
    """

    send_mbit: float
    receive_mbit: float
    packets: int
    acknowledgements: int
    retransmits: int


def measure(megabytes: int = 200, mtu: int = 1420, rows: selected.Rows = selected.rows) -> Result:
    """Send so many megabytes from one stack to another."""
    a, b = (Stack(addresses=[f"10.0.0.{number}/32"], mtu=mtu, random=os.urandom, rows=rows) for number in (1, 2))
    listener = b.listen_tcp(80)
    sender = a.connect_tcp(("10.0.0.2", 80), time.monotonic())
    receiver = None
    chunk = os.urandom(2**18)
    left, got = megabytes * 10**6, 0
    total = left
    spent_a = spent_b = 0.0
    while got < total:
        now = time.monotonic()
        start = time.thread_time()
        if sender.is_established and left:
            left -= sender.write(memoryview(chunk)[:left], now)
        out = a.emit(now, _BUDGET)
        spent_a += time.thread_time() - start
        groups = [group.slab for group in sort_rows(out, ()).groups]
        start = time.thread_time()
        b.receive(groups, now)
        if receiver is None:
            receiver = listener.accept()
        else:
            while octets := receiver.read(2**18, now):
                got += len(octets)
        back = b.emit(now, _BUDGET)
        spent_b += time.thread_time() - start
        groups = [group.slab for group in sort_rows(back, ()).groups]
        start = time.thread_time()
        a.receive(groups, now)
        deadline = a.next_deadline()
        if deadline is not None and deadline <= now:
            a.handle_timer(now)
        spent_a += time.thread_time() - start
        start = time.thread_time()
        deadline = b.next_deadline()
        if deadline is not None and deadline <= now:
            b.handle_timer(now)
        spent_b += time.thread_time() - start
    mbit = total * 8 / 1e6
    return Result(
        send_mbit=mbit / spent_a,
        receive_mbit=mbit / spent_b,
        packets=a.statistics().packets_sent,
        acknowledgements=b.statistics().packets_sent,
        retransmits=sender.info().retransmits,
    )


def connects_per_second(count: int = 3000) -> float:
    """Open and close so many connections, both sides in one thread: connections per second of CPU time."""
    a, b = (Stack(addresses=[f"10.0.0.{number}/32"], mtu=1420, random=os.urandom) for number in (1, 2))
    listener = b.listen_tcp(80)
    start = time.thread_time()
    for _ in range(count):
        now = time.monotonic()
        client = a.connect_tcp(("10.0.0.2", 80), now)
        server = None
        for _ in range(6):
            b.receive([group.slab for group in sort_rows(a.emit(now, 64), ()).groups], now)
            if server is None and (server := listener.accept()) is not None:
                server.close(now)
            a.receive([group.slab for group in sort_rows(b.emit(now, 64), ()).groups], now)
            if client.at_eof:
                client.close(now)
            if client.is_closed and server is not None and server.is_closed:
                break
    return count / (time.thread_time() - start)

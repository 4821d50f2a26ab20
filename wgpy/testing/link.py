"""Two userspace stacks joined by a bad network in memory: virtual time, seeded trouble, and a wiretap of packets.

    Side.stack.emit -> Link (loss, delay, repetition, reordering, damage, a bottleneck; the tap) -> Side.stack.receive

Nothing here waits: `run` advances the clock from event to event, and the same seed gives the same run, octet by octet.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from wgpy.dataplane.inner import sort_rows
from wgpy.dataplane.slab import Slab
from wgpy.netstack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wgpy.netstack.stack import Socket

__all__ = ["Link", "Side", "Tapped", "join", "slabs_of"]

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Tapped:
    """One packet as the wiretap saw it.

    Attributes:
        time: when it left, seconds.
        sender: index of the side that sent it.
        packet: without padding.
        is_lost: it never arrives.
    """

    time: float
    sender: int
    packet: bytes
    is_lost: bool


class Side:
    """A stack at one end.

    Attributes:
        stack: the stack.
        ready: sockets whose readiness changed, in order, for `on_ready` or for a test to look at.
        on_ready: called with each of them.
    """

    def __init__(self, stack: Stack) -> None:
        """Use `join`, or `Link.attach`."""
        self.stack = stack
        self.on_ready: Callable[[Socket], None] | None = None

    def woken(self, sockets: Sequence[Socket]) -> None:
        """Tell whoever listens."""
        if self.on_ready is not None:
            for socket in sockets:
                self.on_ready(socket)


@dataclass
class Link:
    """Two sides, and what happens between them.

    Attributes:
        seed: of everything that is random.
        delay: seconds, one way.
        jitter: up to so many seconds more: packets overtake each other.
        loss: probability.
        repeats: probability that a packet arrives twice.
        damage: probability that a bit of it flips.
        rate: of the bottleneck in each direction, octets per second; 0 for none.
        queue: octets that wait before the bottleneck before its tail is dropped.
        drop: further packets to lose, decided by the test.
        is_merged: packets that arrive at one moment are handed over as one slab, as WireGuard does.
        is_tapped: keep every packet in `tap`.
        now: virtual time, seconds.
        tap: every packet that was sent.
    """

    seed: int = 1
    delay: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    repeats: float = 0.0
    damage: float = 0.0
    rate: float = 0.0
    queue: int = 256 * 1024
    drop: Callable[[Tapped], bool] | None = None
    is_merged: bool = True
    is_tapped: bool = True
    now: float = 1000.0
    tap: list[Tapped] = field(default_factory=list)
    lost: int = 0

    def __post_init__(self) -> None:
        """Seed the trouble."""
        self.random = random.Random(self.seed)
        self.sides: list[Side] = []
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._numbers = count()
        self._free_at = [0.0, 0.0]

    def attach(self, stack: Stack) -> Side:
        """Connect a stack; there are two."""
        side = Side(stack)
        self.sides.append(side)
        return side

    def flush(self) -> None:
        """Take out what the stacks have to say; call this after a verb of a socket."""
        for index, side in enumerate(self.sides):
            while slabs := side.stack.emit(self.now, _ROWS_AT_ONCE):
                for group in sort_rows(slabs, ()).groups:
                    for row in group.slab:
                        self._send(index, bytes(row))
            side.woken(side.stack.take_ready())

    def inject(self, packet: bytes, to: int) -> None:
        """Deliver a packet of the test's own making at once."""
        self._deliver(to, [packet])
        self.flush()

    def _send(self, sender: int, packet: bytes) -> None:
        is_lost = self.random.random() < self.loss
        moment = self.now
        if self.rate and not is_lost:
            start = max(self._free_at[sender], self.now)
            is_lost = (start - self.now) * self.rate > self.queue
            if not is_lost:
                self._free_at[sender] = moment = start + len(packet) / self.rate
        tapped = Tapped(self.now, sender, packet, is_lost)
        if self.drop is not None and not is_lost and self.drop(tapped):
            tapped = Tapped(self.now, sender, packet, True)
        if self.is_tapped:
            self.tap.append(tapped)
        if tapped.is_lost:
            self.lost += 1
            return
        if self.damage and self.random.random() < self.damage:
            at = self.random.randrange(len(packet))
            packet = packet[:at] + bytes([packet[at] ^ 1 << self.random.randrange(8)]) + packet[at + 1 :]
        for _ in range(2 if self.random.random() < self.repeats else 1):
            arrival = moment + self.delay + self.random.random() * self.jitter
            heapq.heappush(self._under_way, (arrival, next(self._numbers), 1 - sender, packet))

    def _deliver(self, to: int, packets: list[bytes]) -> None:
        side = self.sides[to]
        slabs = slabs_of(packets) if self.is_merged else [Slab.of_packet(packet, 1 << 16) for packet in packets]
        groups = [group.slab for group in sort_rows(slabs, ()).groups]
        side.woken(side.stack.receive(groups, self.now))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, is_reached: Callable[[], bool], limit: float = 30.0) -> bool:
        """Let time pass until something is so: whether it became so within the limit."""
        end = self.now + limit
        self.flush()
        while not is_reached():
            moments = [side.stack.next_deadline() for side in self.sides]
            moments.append(self._under_way[0][0] if self._under_way else None)
            moment = min((one for one in moments if one is not None), default=math.inf)
            if moment > end:
                self.now = end
                return is_reached()
            self.now = max(self.now, moment)
            batches: tuple[list[bytes], list[bytes]] = ([], [])
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, to, packet = heapq.heappop(self._under_way)
                batches[to].append(packet)
            for to, packets in enumerate(batches):
                if packets:
                    self._deliver(to, packets)
            for side in self.sides:
                deadline = side.stack.next_deadline()
                if deadline is not None and deadline <= self.now:
                    side.woken(side.stack.handle_timer(self.now))
            self.flush()
        return True


def slabs_of(packets: list[bytes]) -> list[Slab]:
    """Packets as they come out of one receive: equal neighbours are rows of one slab, the last may be shorter."""
    from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
    from wgpy.dataplane.slab import Arena

    slabs: list[Slab] = []
    at = 0
    while at < len(packets):
        length = len(packets[at])
        end = at + 1
        while end < len(packets) and len(packets[end]) == length and end - at < 44:
            end += 1
        if end < len(packets) and len(packets[end]) < length:
            end += 1
        run = packets[at:end]
        stride = length + TRANSPORT_OVERHEAD
        buffer = bytearray(stride * len(run))
        for row, packet in enumerate(run):
            start = row * stride + TRANSPORT_HEADER_SIZE
            buffer[start : start + len(packet)] = packet
        slabs.append(Slab(Arena(buffer), 0, stride, len(run), length, len(run[-1])))
        at = end
    return slabs


def join(link: Link | None = None, *, mtu: int = 1420, version: int = 4, **options: Any) -> Link:
    """Two stacks, 10.0.0.1 and 10.0.0.2 (fd00::1 and fd00::2), at the ends of a link.

    Args:
        link: with the trouble that is wanted.
        mtu: of both.
        version: address family.
        options: for both stacks.

    Example:
        >>> link = join()
        >>> listener = link.sides[1].stack.listen_tcp(80)
        >>> connection = link.sides[0].stack.connect_tcp(("10.0.0.2", 80), link.now)
        >>> link.run_until(lambda: connection.is_established)
        True
    """
    link = link or Link()
    for number in (1, 2):
        address = f"10.0.0.{number}/32" if version == 4 else f"fd00::{number}/128"
        link.attach(Stack(addresses=[address], mtu=mtu, random=link.random.randbytes, **options))
    return link

"""Two applications that talk over a bad network, and an eavesdropper who knows what TCP must never do."""

import random

from wgpy.netstack.stack import Stack
from wgpy.testing.link import Link, Tapped, join
from wgpy.wire import ip, tcp


class Eavesdropper:
    """Sees every packet when it leaves, and fails when one breaks a promise."""

    def __init__(self, link, mtu):
        self.mtu = mtu
        # For each side: what it promised to take (absolute in 32 bits), its scale, and whether SYNs agreed on one.
        self.edges = [None, None]
        self.highest = [None, None]
        self.scales = [None, None]
        self.link = link
        self.before = link.drop
        link.drop = self

    def __call__(self, tapped: Tapped) -> bool:
        packet, sender = tapped.packet, tapped.sender
        assert len(packet) <= self.mtu
        header = ip.decode_untrusted(packet)
        segment = tcp.decode_untrusted(packet, header.payload_at, header.length)
        length = header.length - header.payload_at - segment.header_length
        if segment.flags & tcp.SYN:
            self.scales[sender] = segment.scale
        elif length:
            edge = self.edges[1 - sender]
            end = (segment.sequence + length) & 0xFFFFFFFF
            # Never beyond what the other side ever promised and we could have heard of.
            assert edge is None or _ahead(end, edge) <= 0, f"octets up to {end} beyond the edge {edge}"
        if segment.flags & tcp.ACK and not segment.flags & tcp.RST:
            scaled = not segment.flags & tcp.SYN and None not in self.scales
            window = segment.window << (self.scales[sender] if scaled else 0)
            edge = (segment.acknowledgement + window) & 0xFFFFFFFF
            if self.edges[sender] is None or _ahead(edge, self.edges[sender]) > 0:
                self.edges[sender] = edge
            else:
                granularity = 1 << (self.scales[sender] or 0)
                assert _ahead(self.edges[sender], edge) < granularity, "the promised edge moved left"
        return self.before(tapped) if self.before is not None else False


def _ahead(a, b):
    return (a - b + 0x80000000 & 0xFFFFFFFF) - 0x80000000


class Talker:
    """One end: writes so many octets of its own stream, in random pieces, and reads in random pieces."""

    def __init__(self, connection, seed, octets, *, lazy=False):
        self.connection = connection
        self.random = random.Random(seed)
        self.stream = self.random.randbytes(octets)
        self.written = 0
        self.got = bytearray()
        self.is_shut = False
        self.is_closed = False
        self.lazy = lazy

    def act(self, now):
        """Do what an application may do now."""
        connection = self.connection
        if connection.error is None and self.written < len(self.stream):
            size = self.random.choice((1, 100, 1000, 10_000, 100_000))
            self.written += connection.write(self.stream[self.written : self.written + size], now)
        if connection.error is None and self.written == len(self.stream) and not self.is_shut:
            self.is_shut = True
            connection.shutdown_write(now)
        while connection.receiver.ready:
            self.got += connection.read(self.random.choice((10, 1000, 1 << 20)), now)
            if self.lazy and self.random.random() < 0.7:
                break
        if self.is_shut and connection.at_eof and not self.is_closed:
            self.is_closed = True
            connection.close(now, linger=1000.0)

    @property
    def is_done(self):
        return self.is_closed or self.connection.error is not None


def talk(link: Link, *, octets=(100_000, 20_000), seed=1, limit=2000.0, lazy=False, step=None):
    """Let both sides of a joined link talk until both closed; returns the two talkers."""
    a, b = (side.stack for side in link.sides)
    listener = b.listen_tcp(80)
    address = "10.0.0.2" if a.local_address_for(bytes(4)) is not None else "fd00::2"
    first = Talker(a.connect_tcp((address, 80), link.now), seed, octets[0], lazy=lazy)
    talkers = [first]

    def turn():
        if len(talkers) == 1 and (accepted := listener.accept()) is not None:
            talkers.append(Talker(accepted, seed + 1, octets[1], lazy=lazy))
        for talker in talkers:
            talker.act(link.now)
        if step is not None:
            step(talkers)
        link.flush()
        return (len(talkers) == 2 and all(talker.is_done for talker in talkers)) or first.connection.error is not None

    # A lazy reader comes back by itself: the network alone would never wake it.
    end = link.now + limit
    while not link.run_until(turn, 0.05 if lazy else limit) and link.now < end:
        pass
    # Whoever failed leaves the other one alone; an application would give up at last.
    for talker in talkers:
        if not talker.is_done:
            talker.connection.abort(link.now)
    listener.close(link.now)
    link.flush()
    return talkers


def everything_is_forgotten(stack: Stack):
    """Whether no timer, connection or record is left."""
    statistics = stack.statistics()
    return (
        stack.next_deadline() is None
        and not stack.has_output()
        and statistics.connections == statistics.time_wait == statistics.buffered == 0
    )


__all__ = ["Eavesdropper", "Talker", "everything_is_forgotten", "join", "talk"]

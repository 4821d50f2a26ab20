"""TCP conversations as a script: one real stack, and the test in the part of its peer.

    script = Script()
    connection = script.open()                      # the handshake, played out
    connection.write(b"hello", script.now)
    script.expect("PA", seq=1, ack=1, payload=b"hello")
    script.inject("A", seq=1, ack=6)
    script.expect_nothing(for_seconds=10)

Sequence numbers are relative: 0 is the SYN of whoever sent it, 1 its first octet. Time is virtual; what the stack sends
while time passes is kept with its moment, and `expect` wants it in order, exact in all that is named.
"""

from __future__ import annotations

import ipaddress
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wgpy.dataplane.inner import sort_rows
from wgpy.dataplane.slab import Slab
from wgpy.netstack.emission import Headers
from wgpy.netstack.stack import Stack
from wgpy.wire import ip, tcp
from wgpy.wire.checksum import checksum, pseudo_header_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.netstack.tcp.connection import TcpConnection
    from wgpy.netstack.tcp.listener import TcpListener
    from wgpy.wire.tcp import Segment

__all__ = ["Script", "Sent"]

_LETTERS: Final = {
    "F": tcp.FIN,
    "S": tcp.SYN,
    "R": tcp.RST,
    "P": tcp.PSH,
    "A": tcp.ACK,
    "U": tcp.URG,
    "E": tcp.ECE,
    "W": tcp.CWR,
}
_MILLISECOND: Final = 0.001


@dataclass(frozen=True, slots=True, repr=False)
class Sent:
    """One TCP segment of the stack.

    Attributes:
        time: when it left, seconds since the script began.
        segment: the header, numbers as on the wire.
        payload: octets.
        traffic_class: of the packet.
        flags: as letters, such as "PA".
        seq: relative.
        ack: relative.
        sack: relative blocks.
    """

    time: float
    segment: Segment
    payload: bytes
    traffic_class: int
    flags: str
    seq: int
    ack: int
    sack: tuple[tuple[int, int], ...]

    def __repr__(self) -> str:
        """As tcpdump would say it."""
        window, stamp = self.segment.window, self.segment.timestamps
        octets = f"{self.seq}:{self.seq + len(self.payload)}({len(self.payload)})"
        return f"<{self.time:.4f} {self.flags} {octets} ack {self.ack} win {window} sack {self.sack} ts {stamp}>"


class Script:
    """A stack at 10.0.0.1 (or fd00::1), played with from 10.0.0.2 (fd00::2).

    Attributes:
        stack: under test.
        now: virtual time, seconds.
        iss: the initial sequence number that the script uses as the peer.
    """

    def __init__(
        self, *, mtu: int = 1420, version: int = 4, iss: int = 1_000_000, seed: int = 1, **options: Any
    ) -> None:
        """Begin.

        Args:
            mtu: of the stack.
            version: address family.
            iss: of the peer.
            seed: of the stack's randomness.
            options: for the stack.
        """
        here, there = ("10.0.0.1", "10.0.0.2") if version == 4 else ("fd00::1", "fd00::2")
        self.local, self.remote = ipaddress.ip_address(here).packed, ipaddress.ip_address(there).packed
        self.address, self.peer = here, there
        self._random = random.Random(seed)
        self.stack = Stack(
            addresses=[f"{here}/{8 * len(self.local)}"], mtu=mtu, random=self._random.randbytes, **options
        )
        self._begin = self.now = 1000.0
        self.iss = iss
        self.our_iss = 0
        self.port, self.peer_port = 0, 80
        self.sent: list[Sent] = []
        self.control: list[bytes] = []
        self._has_timestamps = False
        self._last_timestamp = 0

    # --- the handshake -----------------------------------------------------------------------------------------------

    def connect(self, port: int = 80) -> TcpConnection:
        """Let the stack open a connection to the peer; its SYN is to be expected."""
        connection = self.stack.connect_tcp((self.peer, port), self.now)
        self.port, self.peer_port = connection.local[1], port
        self.collect()
        return connection

    def listen(self, port: int = 80, **options: Any) -> TcpListener:
        """Let the stack listen; SYNs come from port 40000 unless `peer_port` is changed."""
        listener = self.stack.listen_tcp(port, **options)
        self.port, self.peer_port = port, 40000
        return listener

    def open(
        self,
        *,
        mss: int | None = 1380,
        scale: int | None = 7,
        sack: bool = True,
        timestamps: bool = False,
        window: int = 0xFFFF,
        delay: float = 0.01,
    ) -> TcpConnection:
        """Play a whole active open, with what the peer agrees to; the peer answers after `delay` seconds."""
        connection = self.connect()
        self.expect("S")
        self.sleep(delay)
        self.inject("SA", seq=0, ack=1, window=window, mss=mss, scale=scale, sack_permitted=sack, timestamps=timestamps)
        self.expect("A", seq=1, ack=1)
        return connection

    def accept(
        self,
        listener: TcpListener,
        *,
        mss: int | None = 1380,
        scale: int | None = 7,
        sack: bool = True,
        timestamps: bool = False,
        window: int = 0xFFFF,
        delay: float = 0.01,
    ) -> TcpConnection:
        """Play a whole passive open."""
        self.inject("S", seq=0, window=window, mss=mss, scale=scale, sack_permitted=sack, timestamps=timestamps)
        self.expect("SA", ack=1)
        self.sleep(delay)
        self.inject("A", seq=1, ack=1, window=window >> (scale or 0))
        connection = listener.accept()
        assert connection is not None, "the handshake gave no connection"
        return connection

    # --- segments in -------------------------------------------------------------------------------------------------

    def packet(
        self,
        flags: str,
        *,
        seq: int = 1,
        ack: int = 0,
        window: int = 0xFFFF,
        payload: bytes = b"",
        mss: int | None = None,
        scale: int | None = None,
        sack_permitted: bool = False,
        timestamps: tuple[int, int] | bool | None = None,
        sack: tuple[tuple[int, int], ...] = (),
        options: bytes | None = None,
        traffic_class: int = 0,
    ) -> bytes:
        """A segment of the peer as a whole packet.

        Timestamps are added by themselves once they were agreed; True offers them with a SYN, False leaves them out.
        """
        if "S" in flags and timestamps:
            self._has_timestamps = True
        if timestamps is None:
            timestamps = self._has_timestamps and "S" not in flags
        stamp = timestamps if isinstance(timestamps, tuple) else (self.clock(), self._last_timestamp)
        if options is None:
            options = tcp.encode_options(
                mss=mss,
                scale=scale,
                timestamps=stamp if timestamps else None,
                sack_permitted=sack_permitted,
                sack=tuple(
                    ((left + self.our_iss) & 0xFFFFFFFF, (right + self.our_iss) & 0xFFFFFFFF) for left, right in sack
                ),
            )
        bits = sum(_LETTERS[letter] for letter in flags)
        acknowledgement = ack + self.our_iss if "A" in flags else ack
        return Headers(self.remote, self.peer_port, self.local, self.port).packet(
            seq + self.iss, acknowledgement, bits, window, options, payload, traffic_class
        )

    def clock(self) -> int:
        """The peer's timestamp: milliseconds."""
        return round((self.now - self._begin) * 1000) + 5000

    def inject(self, flags: str, **fields: Any) -> None:
        """Let a segment of the peer arrive; see `packet` for what can be said of it."""
        self.inject_packet(self.packet(flags, **fields))

    def inject_packet(self, packet: bytes) -> None:
        """Let any packet arrive."""
        self.inject_batch(packet)

    def inject_batch(self, *packets: bytes) -> None:
        """Let packets arrive together."""
        slabs = [Slab.of_packet(packet, 1 << 16) for packet in packets]
        self.stack.receive([group.slab for group in sort_rows(slabs, ()).groups], self.now)
        self.collect()

    # --- segments out ------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take what the stack has to send now; `expect` and `sleep` begin with it."""
        while slabs := self.stack.emit(self.now, 1024):
            for group in sort_rows(slabs, ()).groups:
                for row in group.slab:
                    self._note(bytes(row))

    def _note(self, packet: bytes) -> None:
        header = ip.decode_untrusted(packet)
        if header.protocol != ip.TCP:
            self.control.append(packet)
            return
        at = header.payload_at
        total = pseudo_header_sum(header.source, header.destination, ip.TCP, header.length - at)
        assert checksum(packet[at : header.length], total) == 0, "the stack sent a wrong checksum"
        segment = tcp.decode_untrusted(packet, at, header.length)
        if segment.flags & tcp.SYN:
            self.our_iss = segment.sequence
        if segment.timestamps is not None:
            self._last_timestamp = segment.timestamps[0]
        self.sent.append(
            Sent(
                self.now - self._begin,
                segment,
                packet[at + segment.header_length : header.length],
                header.traffic_class,
                "".join(letter for letter, bit in _LETTERS.items() if segment.flags & bit),
                _signed(segment.sequence - self.our_iss),
                _signed(segment.acknowledgement - self.iss) if segment.flags & tcp.ACK else segment.acknowledgement,
                tuple((_signed(left - self.iss), _signed(right - self.iss)) for left, right in segment.sack),
            )
        )

    def expect(self, flags: str, *, at: float | None = None, length: int | None = None, **fields: Any) -> Sent:
        """The next segment of the stack is exactly so.

        Args:
            flags: letters of F S R P A U E W, in any order.
            at: when it left, seconds since the script began; else now, to the millisecond.
            length: octets of payload.
            fields: of `Sent` or of its header: seq, ack, payload, window, mss, scale, timestamps, sack_permitted, sack.
        """
        self.collect()
        assert self.sent, f"nothing was sent; expected {flags} {fields}"
        sent = self.sent.pop(0)
        assert sorted(sent.flags) == sorted(flags), f"flags {sent.flags}, expected {flags}: {sent}"
        moment = self.now - self._begin if at is None else at
        assert abs(sent.time - moment) <= _MILLISECOND, f"left at {sent.time:.4f}, expected {moment:.4f}: {sent}"
        if length is not None:
            assert len(sent.payload) == length, f"{len(sent.payload)} octets, expected {length}: {sent}"
        for name, value in fields.items():
            actual = getattr(sent, name) if hasattr(sent, name) else getattr(sent.segment, name)
            assert actual == value, f"{name} is {actual}, expected {value}: {sent}"
        return sent

    def expect_run(self, first: int, end: int, size: int) -> list[Sent]:
        """The next segments of the stack carry the octets from `first` to `end`, `size` in each but the last."""
        run: list[Sent] = []
        while first < end:
            self.collect()
            assert self.sent, f"nothing was sent; expected octets from {first} on"
            sent = self.sent.pop(0)
            assert (sent.seq, len(sent.payload)) == (first, min(size, end - first)), f"expected {first}: {sent}"
            run.append(sent)
            first += len(sent.payload)
        return run

    def expect_nothing(self, *, for_seconds: float = 0.0) -> None:
        """The stack sends nothing more, now or for some time."""
        self.collect()
        self.sleep(for_seconds)
        assert not self.sent, f"sent {self.sent[0]}"

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the script began."""
        return self.now - self._begin

    def sleep(self, seconds: float) -> None:
        """Let time pass: timers fire at their moments, and what they send is kept."""
        self.collect()
        end = self.now + seconds
        while True:
            deadline = self.stack.next_deadline()
            moment = math.inf if deadline is None else deadline
            if moment > end:
                break
            self.now = max(self.now, moment)
            self.stack.handle_timer(self.now)
            self.collect()
        self.now = end

    def sleep_until(self, moment: float) -> None:
        """Let time pass up to a moment since the script began."""
        self.sleep(self._begin + moment - self.now)

    def wait_for(self, condition: Callable[[], bool], limit: float = 300.0) -> None:
        """Let time pass, deadline by deadline, until something is so."""
        end = self.now + limit
        self.collect()
        while not condition():
            deadline = self.stack.next_deadline()
            assert deadline is not None, "it never came to be so: the stack waits for nothing"
            assert deadline <= end, "it did not come to be so in time"
            self.sleep(max(deadline - self.now, 0.0))


def _signed(number: int) -> int:
    """A difference of two sequence numbers as the nearer one around zero."""
    return (number + 0x80000000 & 0xFFFFFFFF) - 0x80000000

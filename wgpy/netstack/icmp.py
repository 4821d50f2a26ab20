"""ICMP of the stack: echo in both roles, errors out under a limit, errors in to whom they concern.

    handlers of protocols 1 and 58 -> Icmp -> echo reply | EchoSocket | UdpTable.icmp_error | Stack.tcp_icmp_error
    no socket, no such protocol, reassembly that ran out of time -> Icmp -> error, if a token is left

An error is believed only if it quotes a packet that we may have sent; what it then does is soft or hard as RFC 5461 has
it, and decided by whom it concerns.

Source: RFC 792, RFC 1122 3.2.2, RFC 1812 4.3.2.8, RFC 4443, RFC 5461, RFC 5927.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.addresses import parsed
from wgpy.netstack.constants import (
    ECHO_REPLIES_BURST,
    ECHO_REPLIES_PER_SECOND,
    ICMP_ANSWERS_BURST,
    ICMP_ANSWERS_PER_SECOND,
    UDP_DATAGRAM_OVERHEAD,
    UDP_RECEIVE_QUEUE,
)
from wgpy.netstack.fragments import Reassembler, fragments_of
from wgpy.netstack.pathmtu import PathMtus
from wgpy.netstack.stack import IcmpError
from wgpy.netstack.udp import UdpTable
from wgpy.wire import icmp, ip
from wgpy.wire.icmp import IcmpMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.netstack.stack import Stack
    from wgpy.wire.ip import IpHeader

__all__ = ["EchoSocket", "Icmp", "TokenBucket"]

# What each code of "destination unreachable" means (RFC 1122 3.2.2.1, RFC 1812 5.2.7.1, RFC 4443 3.1); the others that
# there are say that the host is unreachable.
_UNREACHABLE_V4: Final = {
    0: IcmpError.NET_UNREACHABLE,
    2: IcmpError.PROTOCOL_UNREACHABLE,
    3: IcmpError.PORT_UNREACHABLE,
    4: IcmpError.TOO_BIG,
    6: IcmpError.NET_UNREACHABLE,
    9: IcmpError.NET_UNREACHABLE,
    10: IcmpError.PROHIBITED,
    11: IcmpError.NET_UNREACHABLE,
    13: IcmpError.PROHIBITED,
}
_UNREACHABLE_V6: Final = {
    0: IcmpError.NET_UNREACHABLE,
    1: IcmpError.PROHIBITED,
    4: IcmpError.PORT_UNREACHABLE,
    5: IcmpError.PROHIBITED,
    6: IcmpError.PROHIBITED,
}
# Types of errors that carry a quoted packet, beside "destination unreachable".
_TOO_BIG_V6: Final = 2
_UNKNOWN_NEXT_HEADER: Final = 1
_LAST_CODE_V4: Final = 15
_REASSEMBLY_V4: Final = 1
_MAX_ECHO: Final = {4: 65507, 6: 65527}


class TokenBucket:
    """So many a second, with a burst."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        """Start full."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Take one, if one is left."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class EchoSocket:
    """Echo requests to one address under an identifier of our own, and what comes back.

    Attributes:
        remote: whom to ask.
        identifier: 16 bits.
    """

    __slots__ = ("_error", "_owner", "_queue", "_queued", "_remote", "_sent_at", "identifier", "remote")

    def __init__(self, owner: Icmp, remote: bytes, identifier: int) -> None:
        """Use `Icmp.open_echo`."""
        self._owner: Icmp | None = owner
        self._remote = remote
        self._queue: deque[tuple[int, float, bytes]] = deque()
        self._queued = 0
        self._sent_at: dict[int, float] = {}
        self._error: int | None = None
        self.remote = ip.to_text(remote)
        self.identifier = identifier

    def send(self, sequence: int, payload: bytes, now: float) -> bool:
        """Ask once.

        Args:
            sequence: 16 bits; comes back with the answer.
            payload: likewise.
            now: the time.

        Returns:
            False when there is no room: try again when the socket is writable.

        Raises:
            OSError: EMSGSIZE, ENETUNREACH.
        """
        if self._owner is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if len(payload) > _MAX_ECHO[4 if len(self._remote) == 4 else 6]:
            raise OSError(errno.EMSGSIZE, f"{os.strerror(errno.EMSGSIZE)}: an echo of {len(payload)} octets")
        if not self._owner.send_echo(self, self._remote, sequence & 0xFFFF, payload, now):
            return False
        self._sent_at[sequence & 0xFFFF] = now
        return True

    def receive(self) -> tuple[int, float, bytes] | None:
        """Sequence number, seconds from question to answer, and payload of the oldest answer; None if there is none.

        Raises:
            OSError: what ICMP said about an earlier question.
        """
        if self._queue:
            answer = self._queue.popleft()
            self._queued -= len(answer[2]) + UDP_DATAGRAM_OVERHEAD
            return answer
        if self._error is not None:
            number, self._error = self._error, None
            raise OSError(number, f"{os.strerror(number)}: reported by ICMP for {self.remote}")
        return None

    @property
    def is_readable(self) -> bool:
        """Whether `receive` would give something, or fail."""
        return bool(self._queue) or self._error is not None or self._owner is None

    @property
    def is_writable(self) -> bool:
        """Whether `send` would take something, or fail."""
        return self._owner is None or self._owner.has_room(self)

    def deliver(self, source: bytes, sequence: int, payload: bytes, now: float) -> bool:
        """Take an answer; False for one that nobody asked for, or too many."""
        cost = len(payload) + UDP_DATAGRAM_OVERHEAD
        sent_at = self._sent_at.pop(sequence, None) if source == self._remote else None
        if sent_at is None or self._queued + cost > UDP_RECEIVE_QUEUE:
            return False
        self._queued += cost
        self._queue.append((sequence, now - sent_at, payload))
        return True

    def fail(self, remote: bytes, sequence: int, number: int) -> bool:
        """Report an error about a question that was asked."""
        if remote != self._remote or self._sent_at.pop(sequence, None) is None:
            return False
        self._error = number
        return True

    def close(self) -> None:
        """Give the identifier back."""
        if self._owner is not None:
            self._owner.forget(self)
            self._owner = None


class Icmp:
    """ICMP and ICMPv6 of one stack, with the parts that speak through it.

    Attributes:
        udp: the datagram sockets.
        paths: MTU of each path, for datagrams and echo.
        reassembler: fragments that wait.
    """

    def __init__(self, stack: Stack, *, random: Callable[[int], bytes]) -> None:
        """Register for ICMP, datagrams and fragments.

        Args:
            stack: whose packets.
            random: gives so many random octets.
        """
        self._stack = stack
        self._random = random
        self._errors_out = TokenBucket(ICMP_ANSWERS_PER_SECOND, ICMP_ANSWERS_BURST)
        self._replies_out = TokenBucket(ECHO_REPLIES_PER_SECOND, ECHO_REPLIES_BURST)
        self._echoes: dict[int, EchoSocket] = {}
        self._identification = int.from_bytes(random(4))
        self._now = 0.0
        self.paths = PathMtus(lambda: stack.mtu)
        self.udp = UdpTable(stack, self.paths, random=random)
        self.udp.no_socket = self._answer_no_socket
        self.reassembler = Reassembler(drop=stack.count_drop, expired=self._answer_expired)
        stack.register_protocol(ip.ICMP, self._receive_untrusted)
        stack.register_protocol(ip.ICMPV6, self._receive_untrusted)
        stack.register_fragments(self.reassembler.add_untrusted)
        stack.register_unreachable(self._answer_unreachable)
        stack.register_timed(self)

    # --- in ----------------------------------------------------------------------------------------------------------

    def _receive_untrusted(self, packet: memoryview, header: IpHeader, now: float) -> None:
        numbers = icmp.types(header.version)
        if header.protocol != numbers.protocol:
            raise BadPacket(DropReason.UNKNOWN_PROTOCOL)
        message = icmp.decode_untrusted(packet[header.payload_at : header.length], header.source, header.destination)
        if message.kind == numbers.echo_request:
            self._answer_echo(header, message, now)
        elif message.kind == numbers.echo_reply:
            echo = self._echoes.get(message.rest >> 16)
            if echo is None or not echo.deliver(header.source, message.rest & 0xFFFF, bytes(message.body), now):
                raise BadPacket(DropReason.ICMP_UNRELATED)
            self._stack.mark_ready(echo)
        else:
            told = _read_error(header.version, message)
            if told is None or not self._take_error_untrusted(header.version, message, *told, now):
                raise BadPacket(DropReason.ICMP_UNRELATED)

    def _take_error_untrusted(self, version: int, message: IcmpMessage, kind: IcmpError, mtu: int, now: float) -> bool:
        """Bring an error to whom it concerns: whether it concerned anybody."""
        quoted = _quoted_untrusted(version, message.body)
        if quoted is None or not self._stack.is_local(quoted[0]):
            return False
        source, destination, protocol, transport = quoted
        ports = int.from_bytes(transport[:2]), int.from_bytes(transport[2:4])
        number = 0 if kind is IcmpError.TOO_BIG else int(kind.value)
        if kind is IcmpError.PROHIBITED and version == 4:
            number = errno.EHOSTUNREACH
        if protocol == ip.TCP:
            sequence = int.from_bytes(transport[4:8])
            self._stack.tcp_icmp_error(kind, (source, ports[0]), (destination, ports[1]), sequence, now, mtu=mtu)
            return True
        if protocol == ip.UDP:
            is_ours = self.udp.icmp_error(number, (source, ports[0]), (destination, ports[1]))
        elif protocol == icmp.types(version).protocol and transport[0] == icmp.types(version).echo_request:
            echo = self._echoes.get(int.from_bytes(transport[4:6]))
            is_ours = echo is not None and echo.fail(
                destination, int.from_bytes(transport[6:8]), number or errno.EMSGSIZE
            )
            if is_ours and echo is not None:
                self._stack.mark_ready(echo)
        else:
            return False
        if is_ours and kind is IcmpError.TOO_BIG:
            self.paths.learn(destination, mtu, now)
        return is_ours

    # --- out: answers ------------------------------------------------------------------------------------------------

    def _answer_echo(self, header: IpHeader, request: IcmpMessage, now: float) -> None:
        numbers = icmp.types(header.version)
        if not self._replies_out.take(now):
            raise BadPacket(DropReason.ICMP_RATE_LIMITED)
        reply = IcmpMessage(numbers.echo_reply, 0, request.rest, request.body)
        octets = icmp.encode(header.destination, header.source, reply)
        packets = self._packets(header.destination, header.source, octets, now)
        for packet in packets:
            if not self._stack.queue_control(packet):
                raise BadPacket(DropReason.ICMP_RATE_LIMITED)

    def _answer_no_socket(self, packet: memoryview, header: IpHeader, now: float) -> None:
        numbers = icmp.types(header.version)
        self._answer(packet, now, numbers.unreachable, numbers.port_unreachable)

    def _answer_unreachable(self, packet: memoryview, header: IpHeader, now: float) -> None:
        problem = header.problem
        if problem is not None:
            self._answer(packet, now, 4, problem.code, problem.pointer, even_to_multicast=problem.even_to_multicast)
        elif header.version == 6:
            # RFC 8200 4: to the host, an unknown protocol is an unknown next header.
            self._answer(packet, now, 4, _UNKNOWN_NEXT_HEADER, header.protocol_at)
        else:
            self._answer(packet, now, 3, 2)

    def _answer_expired(self, first_fragment: bytes) -> None:
        numbers = icmp.types(first_fragment[0] >> 4)
        self._answer(first_fragment, self._now, numbers.time_exceeded, 1)

    def _answer(
        self,
        packet: bytes | memoryview,
        now: float,
        kind: int,
        code: int,
        rest: int = 0,
        *,
        even_to_multicast: bool = False,
    ) -> None:
        answer = icmp.error(bytes(packet), kind, code, rest, even_to_multicast=even_to_multicast)
        if answer is None:
            return
        if not self._errors_out.take(now) or not self._stack.queue_control(answer):
            self._stack.count_drop(DropReason.ICMP_RATE_LIMITED)

    # --- out: questions ----------------------------------------------------------------------------------------------

    def open_echo(self, remote: str) -> EchoSocket:
        """Prepare to ask an address.

        Raises:
            OSError: EINVAL, ENETUNREACH for what is no host's address, or EADDRNOTAVAIL when 65,536 are open.
        """
        address = parsed(remote, 0)[0]
        self._stack.check_destination(address)
        start = int.from_bytes(self._random(2))
        for step in range(65536):
            identifier = (start + step) & 0xFFFF
            if identifier not in self._echoes:
                echo = self._echoes[identifier] = EchoSocket(self, address, identifier)
                return echo
        raise OSError(errno.EADDRNOTAVAIL, "too many pings at once")

    def send_echo(self, echo: EchoSocket, remote: bytes, sequence: int, payload: bytes, now: float) -> bool:
        """Queue a question of a socket, whole or in fragments; all of it or nothing."""
        source = self.udp.source_for(remote)
        numbers = icmp.types(4 if len(remote) == 4 else 6)
        message = IcmpMessage(numbers.echo_request, 0, echo.identifier << 16 | sequence, payload)
        packets = self._packets(source, remote, icmp.encode(source, remote, message), now)
        octets = sum(map(len, packets))
        if octets > self._stack.queue_room(echo, octets):
            return False
        for packet in packets:
            self._stack.queue_packet(packet, echo)
        return True

    def has_room(self, echo: EchoSocket) -> bool:
        """Whether a small question would be taken."""
        return self._stack.queue_room(echo) > 0

    def forget(self, echo: EchoSocket) -> None:
        """Take a closed socket out of the table."""
        del self._echoes[echo.identifier]

    def _packets(self, source: bytes, destination: bytes, message: bytes, now: float) -> list[bytes]:
        self._identification += 1
        return fragments_of(
            source,
            destination,
            ip.ICMP if len(source) == 4 else ip.ICMPV6,
            message,
            identification=self._identification & 0xFFFFFFFF,
            mtu=self.paths.get(destination, now),
        )

    # --- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When reassembly gives something up."""
        return self.reassembler.next_deadline()

    def handle_timer(self, now: float) -> None:
        """Let reassembly give up what is due."""
        self._now = now
        self.reassembler.handle_timer(now)


def _read_error(version: int, message: IcmpMessage) -> tuple[IcmpError, int] | None:
    """What an error says, and the MTU if it names one; None for what is no error that a host acts on."""
    numbers = icmp.types(version)
    if message.kind == numbers.unreachable:
        if version == 4:
            if message.code > _LAST_CODE_V4:
                return None
            kind = _UNREACHABLE_V4.get(message.code, IcmpError.HOST_UNREACHABLE)
            return kind, message.rest & 0xFFFF if kind is IcmpError.TOO_BIG else 0
        return _UNREACHABLE_V6.get(message.code, IcmpError.HOST_UNREACHABLE), 0
    if version == 6 and message.kind == _TOO_BIG_V6:
        return IcmpError.TOO_BIG, message.rest
    if message.kind == numbers.time_exceeded:
        # That a fragment was lost on the way says nothing about whether the host can be reached (L).
        return None if version == 4 and message.code == _REASSEMBLY_V4 else (IcmpError.HOST_UNREACHABLE, 0)
    if message.kind == numbers.parameter_problem:
        # RFC 4443 3.4: code 1 is the other family's "protocol unreachable".
        is_protocol = version == 6 and message.code == _UNKNOWN_NEXT_HEADER
        return (IcmpError.PROTOCOL_UNREACHABLE if is_protocol else IcmpError.PARAMETER_PROBLEM), 0
    return None


def _quoted_untrusted(version: int, body: ip.Packet) -> tuple[bytes, bytes, int, bytes] | None:
    """Source, destination, protocol and first eight transport octets of a quoted packet; it may be cut short."""
    if version == 4:
        if len(body) < ip.IPV4_HEADER_SIZE or body[0] >> 4 != 4:
            return None
        at, protocol = (body[0] & 0x0F) * 4, body[9]
        if at < ip.IPV4_HEADER_SIZE or (body[6] << 8 | body[7]) & 0x1FFF:
            return None
    else:
        if len(body) < ip.IPV6_HEADER_SIZE or body[0] >> 4 != 6:
            return None
        at, protocol = ip.IPV6_HEADER_SIZE, body[6]
        # We send no extension header but that of a fragment, of which only the first shows the ports.
        if protocol == 44:
            if len(body) < at + 8 or (body[at + 2] << 8 | body[at + 3]) >> 3:
                return None
            at, protocol = at + 8, body[at]
    if len(body) < at + 8:
        return None
    return ip.source(body), ip.destination(body), protocol, bytes(body[at : at + 8])

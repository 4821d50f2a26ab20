"""The words for everything that can go wrong.

    WgpyError
    ├── ConfigError (also ValueError)   you: a document or value is wrong; carries the path of the field
    ├── LocalProtocolError              you: a verb used against its contract
    ├── DeviceError (also OSError)      the system: no TUN, no permission, address in use
    │   └── EndpointUnresolved (also gaierror)   the name servers: an endpoint's name has no address now
    └── TunnelClosed                    the tunnel ended while you were waiting

    BadPacket(reason: DropReason)       inside the core only; becomes a counter, never reaches a caller

Outside trio's own errors and OSError with an errno for dialling, nothing else leaves the library. Messages say what was
wrong, with which value, and what to do about it. They never contain key material: whatever looks like a key is hidden
in `masked`, through which every text with foreign content goes.
"""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = [
    "BadPacket",
    "ConfigError",
    "DeviceError",
    "DropReason",
    "LocalProtocolError",
    "TunnelClosed",
    "WgpyError",
    "masked",
]

# 32 octets as base64 or as hexadecimal digits, whatever they are glued to.
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{43,}={1,2}|[0-9A-Fa-f]{60,}|[A-Za-z0-9+/]{32,}", re.ASCII)
_CHANGES: Final = re.compile(r"(?<=[a-z])[^a-z]|(?<=[A-Z])[^A-Z]|(?<=[0-9])[^0-9]|(?<=[+/])[^+/]", re.ASCII)
_HIDDEN: Final = "<hidden>"


def _hide(found: re.Match[str]) -> str:
    # Paths and long names are made of words; chance goes from one kind of character to another at three of five places.
    run = found[0]
    is_chance = run.endswith("=") or len(_CHANGES.findall(run)) > 0.35 * len(run)
    return _HIDDEN if is_chance or re.fullmatch("[0-9A-Fa-f]{60,}", run) else run


def masked(text: str) -> str:
    """A text that is about to be shown, with everything hidden in it that could be a key.

    Public keys go too: nobody can tell them from private ones. Who wants to show one shows its repr.

    Example:
        >>> masked("no such file: yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=")
        'no such file: <hidden>'
    """
    return _KEY.sub(_hide, text)


class WgpyError(Exception):
    """Root of every error that wgpy raises on purpose.

    Example:
        >>> try:
        ...     wgpy.PublicKey("too short")
        ... except wgpy.WgpyError as problem:
        ...     print(type(problem).__name__)
        ConfigError
    """


class ConfigError(WgpyError, ValueError):
    r"""A configuration document or value is wrong.

    Attributes:
        field: path of the offending field, such as ``Peer[2].AllowedIPs`` or ``PrivateKey``; empty if none applies.
        line: line of the document, counted from 1, or None where there is no document.
        column: column of the document, counted from 1, or None.

    Example:
        >>> try:
        ...     wgpy.InterfaceConfig.from_ini("[Interface]\nListenPort = high\n")
        ... except wgpy.ConfigError as problem:
        ...     print(problem.line, problem.column, problem.field)
        2 14 ListenPort
    """

    def __init__(self, message: str, *, field: str = "", line: int | None = None, column: int | None = None) -> None:
        """Say what is wrong and how to mend it. What looks like a key is hidden, in the message and in the field."""
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.field = masked(field)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        """One line: where, which field, what."""
        where = "" if self.line is None else f"line {self.line}, column {self.column or 1}: "
        field = f"{self.field}: " if self.field else ""
        return f"{where}{field}{self.message}"


class LocalProtocolError(WgpyError):
    """A verb was used against its contract: unknown peer, slab sealed twice, time running backwards.

    Example:
        >>> engine = wgpy.Engine(wgpy.InterfaceConfig(), random=bytes, wall_clock=lambda: 0.0)
        >>> engine.remove_peer(wgpy.PrivateKey.generate().public_key, now=0.0)
        Traceback (most recent call last):
        wgpy.errors.LocalProtocolError: ...
    """


class DeviceError(WgpyError, OSError):
    """The system refused: no TUN device, no permission, address in use. `errno` is set where the system gave one.

    Example:
        >>> async def main():
        ...     async with wgpy.open_interface("a name with spaces", wgpy.InterfaceConfig()):
        ...         pass
        >>> try:
        ...     trio.run(main)
        ... except wgpy.DeviceError as problem:
        ...     print(problem.strerror)
        an interface name has 1 to 15 characters, no space and no slash: 'a name with spaces'
    """


class TunnelClosed(WgpyError):
    """The tunnel ended while somebody was waiting for it.

    Example:
        >>> async def main():
        ...     packets = wgpy.MemoryDevice("demo")
        ...     packets.close()
        ...     await packets.receive()
        >>> trio.run(main)
        Traceback (most recent call last):
        wgpy.errors.TunnelClosed: demo was closed
    """


class DropReason(enum.Enum):
    """One member per way to refuse a packet. Silence towards the network, never towards the operator.

    Example:
        >>> wgpy.DropReason.INVALID_MAC1.value
        'mac1 is wrong'
    """

    # On arrival, before any key is touched (whitepaper 5.4).
    UNKNOWN_TYPE = "unknown message type or nonzero reserved bytes"
    WRONG_LENGTH = "length does not fit the message type"
    INTERFACE_DOWN = "the interface is down or has no private key"
    # Handshake messages.
    INVALID_MAC1 = "mac1 is wrong"
    INVALID_MAC2 = "under load, and mac2 is missing or wrong: a cookie reply was sent"
    COOKIE_WITHHELD = "under load, mac2 is missing or wrong, and its address got a cookie reply a moment ago"
    RATE_LIMITED = "under load, and the source used up its tokens"
    HANDSHAKE_QUEUE_FULL = "too many handshake messages are waiting"
    LOW_ORDER_POINT = "a Diffie-Hellman result is all zero"
    HANDSHAKE_UNDECRYPTABLE = "a handshake field failed authentication"
    UNKNOWN_PEER = "the initiator's public key belongs to no peer"
    REPLAYED_TIMESTAMP = "the initiation is not newer than the last one"
    INITIATION_FLOOD = "a second initiation within 20 ms"
    NO_SUCH_HANDSHAKE = "the response answers no handshake that waits for one"
    COOKIE_UNEXPECTED = "a cookie reply that answers nothing sent last"
    COOKIE_UNDECRYPTABLE = "a cookie reply that failed authentication"
    # Transport data, after the receiver index.
    UNKNOWN_INDEX = "no session owns the receiver index"
    SESSION_EXPIRED = "the session is older than REJECT_AFTER_TIME"
    COUNTER_EXHAUSTED = "the counter is at or above REJECT_AFTER_MESSAGES"
    INVALID_TAG = "the authentication tag is wrong"
    REPLAYED_COUNTER = "the counter was seen before or is too old"
    # Inner packets, after authentication.
    INNER_MALFORMED = "the inner packet is not a whole IPv4 or IPv6 packet"
    DISALLOWED_SOURCE = "the inner source address is not this peer's"
    # Outbound.
    NO_PEER_FOR_DESTINATION = "no peer has the destination in its AllowedIPs"
    NO_ENDPOINT = "the peer has no endpoint yet"
    STAGING_OVERFLOW = "too many packets wait for a session: the oldest was dropped"
    STAGING_FLUSHED = "staged packets given up with the handshake or the interface"
    ROUTING_LOOP = "a datagram of WireGuard was wrapped too often: the endpoint is routed into the tunnel"
    DATAGRAM_TOO_LARGE = "the sealed datagram would not fit into UDP"
    NO_SOCKET_FOR_FAMILY = "no socket for the endpoint's address family"
    NO_ROOM_AT_WORKER = "the worker that holds the peer is too busy to take what came to another one"
    SEND_FAILED = "the system refused to send the datagram"
    # TUN device.
    BAD_OFFLOAD_HEADER = "a packet from the TUN device with an impossible offload header"
    TUN_WRITE_FAILED = "the TUN device refused the packet"
    NOT_ADMITTED = "the program that holds the interface does not admit the packet"
    # Userspace stack: any protocol.
    IP_HEADER = "the IP header is wrong: checksum, length or options"
    EXTENSION_HEADER = "an IPv6 extension header or option that must not be passed over"
    MARTIAN_SOURCE = "a source address that no host can have"
    FOREIGN_DESTINATION = "the destination is no address of ours"
    UNKNOWN_PROTOCOL = "no such transport protocol here"
    TRANSPORT_HEADER = "the transport header is cut short or its lengths lie"
    TRANSPORT_CHECKSUM = "the transport checksum is wrong"
    # Userspace stack: TCP.
    TCP_OPTIONS = "a TCP option with an impossible length"
    TCP_NO_CONNECTION = "a TCP segment for no connection and no listener"
    TCP_UNACCEPTABLE = "a TCP segment outside of the window, or one that the state does not take"
    TCP_OLD_TIMESTAMP = "an old duplicate by its timestamp (PAWS)"
    TCP_BLIND = "a TCP RST, SYN or acknowledgement that only a blind attacker or a stranger would send"
    TCP_SYN_QUEUE_FULL = "too many half-open connections: the SYN was answered with a cookie and forgotten"
    TCP_ACCEPT_QUEUE_FULL = "the application does not accept fast enough"
    CONTROL_QUEUE_FULL = "too many packets of the stack's own wait to be sent"
    # Userspace stack: fragments, ICMP and datagrams.
    FRAGMENT_MALFORMED = "a fragment with an impossible offset or length"
    FRAGMENT_OVERLAP = "fragments overlap: the whole packet was dropped"
    FRAGMENT_LIMIT = "too many fragments wait for the rest of their packet: the oldest were dropped"
    FRAGMENT_TIMEOUT = "the rest of the packet did not arrive in time"
    ICMP_UNRELATED = "an ICMP message that belongs to nothing we sent"
    ICMP_RATE_LIMITED = "an ICMP answer was held back: too many of them"
    NO_SOCKET = "no socket for the datagram"
    RECEIVE_QUEUE_FULL = "the socket's receive queue is full: the newest datagram was dropped"
    DNS_MALFORMED = "a DNS message that is no whole response to one question"
    DNS_FORGED = "a DNS response that answers no question of ours"


class BadPacket(Exception):
    """Bytes from the network are not acceptable. Stays inside the core and becomes a counter.

    Attributes:
        reason: which counter.
    """

    def __init__(self, reason: DropReason) -> None:
        """Carry the reason to whoever counts."""
        super().__init__(reason.value)
        self.reason = reason

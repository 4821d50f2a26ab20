"""The few rtnetlink requests a tunnel needs: link state, MTU, addresses, routes, and news of all of these.

Source: Linux include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h; rtnetlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from wgpy.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LINKS",
    "PATHS",
    "AddressGone",
    "Link",
    "LinkGone",
    "LinkNews",
    "Netlink",
    "OtherNews",
    "RouteNews",
    "Rule",
    "read_news",
    "subscribe",
]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")

_ERROR, _DONE = 2, 3
_NEW_LINK, _DEL_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DEL_ADDRESS = 20, 21
_NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE = 24, 25, 26
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE = 0x01, 0x04, 0x100, 0x200, 0x400
_IFNAME, _MTU, _GSO_MAX_SEGS = 3, 4, 40
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NEW_RULE, _DEL_RULE = 32, 33
_FRA_SUPPRESS_PREFIXLENGTH, _FRA_TABLE, _FRA_FWMARK = 14, 15, 10
_RULE_INVERTED: Final = 0x2
_ACTION_TABLE: Final = 1
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_TABLE, _RTA_MARK = 1, 2, 4, 15, 16
_IFF_UP: Final = 0x1
_TABLE_MAIN: Final = 254
_PROTOCOL_BOOT: Final = 3
_SCOPE_LINK: Final = 253
_TYPE_UNICAST: Final = 1
# Multicast groups: links; and, for those who send, addresses, routes and rules of both families besides.
LINKS: Final = 0x1
PATHS: Final = LINKS | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface.

    Attributes:
        index: its number in its namespace.
        name: its name now.
        mtu: octets of the greatest packet.
        is_up: administratively.
    """

    index: int
    name: str
    mtu: int
    is_up: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule: which table is asked for which packets.

    Attributes:
        version: 4 or 6.
        table: to look in.
        unless_mark: for packets that do not bear this mark; 0 for all packets.
        suppress_prefixlength: pass over what the table says with a prefix as short as this; None for nothing.
    """

    version: int
    table: int
    unless_mark: int = 0
    suppress_prefixlength: int | None = None

    def packed(self) -> bytes:
        """The body of a request."""
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        flags = _RULE_INVERTED if self.unless_mark else 0
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, _ACTION_TABLE, flags)
        body += _attribute(_FRA_TABLE, struct.pack("=I", self.table))
        if self.unless_mark:
            body += _attribute(_FRA_FWMARK, struct.pack("=I", self.unless_mark))
        if self.suppress_prefixlength is not None:
            body += _attribute(_FRA_SUPPRESS_PREFIXLENGTH, struct.pack("=I", self.suppress_prefixlength))
        return body


@dataclass(frozen=True, slots=True)
class LinkNews:
    """A link changed, or is new."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """A link was deleted or left the namespace."""

    index: int


@dataclass(frozen=True, slots=True)
class AddressGone:
    """An address of ours is no more; 4 or 16 octets."""

    address: bytes


@dataclass(frozen=True, slots=True)
class RouteNews:
    """A route appeared, changed or went.

    Attributes:
        prefix: its network, 4 or 16 octets.
        length: bits of it.
    """

    prefix: bytes
    length: int

    def concerns(self, address: bytes) -> bool:
        """Whether datagrams to an address may go by it, or went."""
        shift = 8 * len(self.prefix) - self.length
        return len(address) == len(self.prefix) and not (
            (int.from_bytes(address) ^ int.from_bytes(self.prefix)) >> shift
        )


@dataclass(frozen=True, slots=True)
class OtherNews:
    """Whatever else there is: rules of routing changed, or news were lost."""


News: TypeAlias = LinkNews | LinkGone | AddressGone | RouteNews | OtherNews


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(payload: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = payload[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, _, _, _ = _MESSAGE.unpack_from(data, at)
        if length < _MESSAGE.size:
            break
        yield kind, data[at + _MESSAGE.size : at + length]
        at += (length + 3) & ~3


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    attributes = _attributes(payload[_LINK.size :])
    return Link(
        index,
        attributes.get(_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        int.from_bytes(attributes.get(_MTU, b""), sys.byteorder),
        bool(flags & _IFF_UP),
    )


class Netlink:
    """Requests, one at a time, about the network namespace in which it was made."""

    __slots__ = ("_socket",)

    def __init__(self) -> None:
        """Open the socket."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        """Use it for a few requests."""
        return self

    def __exit__(self, *_: object) -> None:
        """And close it."""
        self.close()

    def link(self, index: int = 0, name: str = "") -> Link:
        """Look up a link by number or name.

        Raises:
            DeviceError: there is none.
        """
        body = _LINK.pack(0, 0, index, 0, 0)
        if name:
            body += _attribute(_IFNAME, name.encode() + b"\0")
        for kind, payload in self._request(_GET_LINK, _REQUEST, body, f"interface {name or index}"):
            if kind == _NEW_LINK:
                return _link(payload)
        raise DeviceError(errno.ENODEV, f"there is no interface {name or index}")

    def set_link(
        self, index: int, *, is_up: bool | None = None, mtu: int | None = None, gso_max_segs: int | None = None
    ) -> None:
        """Change a link.

        Raises:
            DeviceError: the kernel refuses.
        """
        change = 0 if is_up is None else _IFF_UP
        body = _LINK.pack(0, 0, index, _IFF_UP if is_up else 0, change)
        if mtu is not None:
            body += _attribute(_MTU, struct.pack("=I", mtu))
        if gso_max_segs is not None:
            body += _attribute(_GSO_MAX_SEGS, struct.pack("=I", gso_max_segs))
        self._request(_NEW_LINK, _REQUEST | _ACK, body, "the interface")

    def delete_link(self, index: int) -> None:
        """Delete a link.

        Raises:
            DeviceError: the kernel refuses.
        """
        self._request(_DEL_LINK, _REQUEST | _ACK, _LINK.pack(0, 0, index, 0, 0), "the interface")

    def add_address(self, index: int, address: Interface) -> None:
        """Give a link an address.

        Raises:
            DeviceError: the kernel refuses.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        body = _ADDRESS.pack(family, address.network.prefixlen, 0, 0, index)
        body += _attribute(_IFA_LOCAL, address.ip.packed) + _attribute(_IFA_ADDRESS, address.ip.packed)
        self._request(_NEW_ADDRESS, _REQUEST | _ACK | _CREATE | _REPLACE, body, f"address {address}")

    def add_route(self, index: int, network: Network, *, table: int = _TABLE_MAIN) -> None:
        """Route a network to a link.

        Raises:
            DeviceError: the kernel refuses.
        """
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        scope = _SCOPE_LINK if network.version == 4 else 0
        body = _ROUTE.pack(family, network.prefixlen, 0, 0, 0, _PROTOCOL_BOOT, scope, _TYPE_UNICAST, 0)
        body += _attribute(_RTA_DST, network.network_address.packed) + _attribute(_RTA_OIF, struct.pack("=I", index))
        body += _attribute(_RTA_TABLE, struct.pack("=I", table))
        self._request(_NEW_ROUTE, _REQUEST | _ACK | _CREATE | _REPLACE, body, f"route {network}")

    def interface_towards(self, destination: bytes, *, source: bytes, mark: int = 0) -> int | None:
        """Number of the interface that datagrams leave by; None if there is no way, or not from that source.

        Args:
            destination: 4 or 16 octets.
            source: likewise.
            mark: of the socket that sends.
        """
        family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
        bits = 8 * len(destination)
        body = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
        body += _attribute(_RTA_DST, destination) + _attribute(_RTA_SRC, source)
        if mark:
            body += _attribute(_RTA_MARK, struct.pack("=I", mark))
        try:
            answers = self._request(_GET_ROUTE, _REQUEST, body, "a route")
        except DeviceError:
            return None
        for kind, payload in answers:
            if kind == _NEW_ROUTE:
                found = _attributes(payload[_ROUTE.size :]).get(_RTA_OIF, b"")
                return int.from_bytes(found, sys.byteorder) or None
        return None

    def add_rule(self, rule: Rule) -> None:
        """Add a policy routing rule.

        Raises:
            DeviceError: the kernel refuses.
        """
        self._request(_NEW_RULE, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, rule.packed(), "a routing rule")

    def delete_rule(self, rule: Rule) -> None:
        """Delete a rule that was added.

        Raises:
            DeviceError: the kernel refuses.
        """
        self._request(_DEL_RULE, _REQUEST | _ACK, rule.packed(), "a routing rule")

    def _request(self, kind: int, flags: int, body: bytes, what: str) -> list[tuple[int, bytes]]:
        self._socket.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 1, 0) + body)
        answers = list(_messages(self._socket.recv(65536)))
        for answer, payload in answers:
            if answer == _ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                if number:
                    hint = " (needs CAP_NET_ADMIN)" if number == errno.EPERM else ""
                    raise DeviceError(number, f"{what}: {os.strerror(number)}{hint}")
        return answers


def subscribe(groups: int) -> socket.socket:
    """A non-blocking socket that becomes readable when `LINKS` or `PATHS` of this namespace change."""
    news = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    news.bind((0, groups))
    return news


def read_news(news: socket.socket) -> list[News]:
    """What the socket of `subscribe` has; if some was lost, an `OtherNews` stands for it."""
    found: list[News] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                data = news.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(OtherNews())
                continue
            for kind, payload in _messages(data):
                if kind == _NEW_ADDRESS:
                    continue  # takes no way from anybody; of its routes there are news besides
                try:
                    found.append(_news(kind, payload))
                except struct.error:
                    found.append(OtherNews())
    return found


def _news(kind: int, payload: bytes) -> News:
    if kind == _NEW_LINK:
        return LinkNews(_link(payload))
    if kind == _DEL_LINK:
        return LinkGone(_LINK.unpack_from(payload)[2])
    if kind == _DEL_ADDRESS:
        attributes = _attributes(payload[_ADDRESS.size :])
        return AddressGone(attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b""))
    if kind in (_NEW_ROUTE, _DEL_ROUTE):
        family, length = _ROUTE.unpack_from(payload)[:2]
        size = 4 if family == socket.AF_INET else 16
        return RouteNews(_attributes(payload[_ROUTE.size :]).get(_RTA_DST, bytes(size)), length)
    return OtherNews()

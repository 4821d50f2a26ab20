"""rtnetlink: asked of the running kernel where no privilege is needed, and what it tells of changes; B39, B51."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from wgpy.errors import DeviceError
from wgpy.tun.netlink import AddressGone, Link, LinkGone, LinkNews, Netlink, OtherNews, RouteNews, read_news


def test_the_loopback_link_is_as_the_system_says() -> None:
    with Netlink() as netlink:
        link = netlink.link(name="lo")
        assert link == netlink.link(index=link.index)
    assert (link.index, link.name) == (socket.if_nametoindex("lo"), "lo")
    assert link.mtu == int(Path("/sys/class/net/lo/mtu").read_text())


def test_a_link_that_is_not_there_is_a_device_error() -> None:
    with Netlink() as netlink, pytest.raises(DeviceError) as raised:
        netlink.link(name="no-such-link")
    assert raised.value.errno == 19


class News:
    """A socket that says what the test wants."""

    def __init__(self, *said: bytes | int) -> None:
        self.said = list(said)

    def recv(self, size: int) -> bytes:
        if not self.said:
            raise BlockingIOError
        one = self.said.pop(0)
        if isinstance(one, int):
            raise OSError(one, os.strerror(one))
        return one


def message(kind: int, index: int, *, is_up: bool = True) -> bytes:
    """RTM_NEWLINK or another, with a name and an MTU (rtnetlink(7))."""
    body = struct.pack("=BxHiII", 0, 0, index, int(is_up), 0)
    body += struct.pack("=HH8s", 12, 3, b"wg0\0") + struct.pack("=HHI", 8, 4, 1420)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def other(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def route(kind: int, family: int, length: int, prefix: bytes = b"") -> bytes:
    head = struct.pack("=8BI", family, length, 0, 0, 254, 3, 0, 1, 0)
    return other(kind, head + (attribute(1, prefix) if prefix else b"") + attribute(4, struct.pack("=I", 3)))


def address(kind: int, family: int, *attributes: tuple[int, bytes]) -> bytes:
    return other(kind, struct.pack("=BBBBI", family, 24, 0, 0, 3) + b"".join(attribute(*one) for one in attributes))


def test_news_of_addresses_and_routes_say_which() -> None:
    four, six = bytes([192, 0, 2, 1]), bytes([0x20, 1] + [0] * 14)
    said = News(
        address(20, socket.AF_INET, (2, four)),
        address(21, socket.AF_INET, (1, bytes(4)), (2, four)) + address(21, socket.AF_INET6, (1, six)),
        route(24, socket.AF_INET, 16, bytes([172, 17, 0, 0])) + route(25, socket.AF_INET6, 0),
        other(32, b""),
        other(24, b"\2"),
    )
    assert read_news(said) == [  # type: ignore[arg-type]
        AddressGone(four),
        AddressGone(six),
        RouteNews(bytes([172, 17, 0, 0]), 16),
        RouteNews(bytes(16), 0),
        OtherNews(),
        OtherNews(),
    ]


@pytest.mark.parametrize(
    ("prefix", "length", "address", "expected"),
    [
        (bytes([172, 17, 0, 0]), 16, bytes([172, 17, 200, 1]), True),
        (bytes([172, 17, 0, 0]), 16, bytes([172, 18, 0, 1]), False),
        (bytes(4), 0, bytes([9, 9, 9, 9]), True),
        (bytes([9, 9, 9, 9]), 32, bytes([9, 9, 9, 9]), True),
        (bytes([9, 9, 9, 9]), 32, bytes([9, 9, 9, 8]), False),
        (bytes(16), 0, bytes([9, 9, 9, 9]), False),
        (bytes(16), 0, bytes([0x20] * 16), True),
        (bytes(4), 0, bytes([0x20] * 16), False),
    ],
)
def test_a_route_concerns_the_addresses_in_its_network(
    prefix: bytes, length: int, address: bytes, expected: bool
) -> None:
    assert RouteNews(prefix, length).concerns(address) is expected


def test_the_way_to_an_address_from_one_of_ours() -> None:
    loopback = socket.if_nametoindex("lo")
    here = bytes([127, 0, 0, 1])
    with Netlink() as netlink:
        assert netlink.interface_towards(here, source=here) == loopback
        assert netlink.interface_towards(here, source=here, mark=0xFFFFFFFF) == loopback
        assert netlink.interface_towards(bytes(15) + b"\1", source=bytes(15) + b"\1") == loopback
        assert netlink.interface_towards(here, source=bytes([203, 0, 113, 77])) is None, "no address of ours"


def test_news_of_links() -> None:
    said = News(message(16, 5) + message(17, 6), message(16, 5, is_up=False))
    assert read_news(said) == [  # type: ignore[arg-type]
        LinkNews(Link(5, "wg0", 1420, True)),
        LinkGone(6),
        LinkNews(Link(5, "wg0", 1420, False)),
    ]


def test_where_news_were_lost_something_may_have_changed() -> None:
    assert read_news(News(errno.ENOBUFS, message(17, 6))) == [OtherNews(), LinkGone(6)]  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_news(News(errno.EBADF))  # type: ignore[arg-type]

"""rtnetlink: asked of the running kernel where no privilege is needed, and what it tells of changes; B39, B51."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from wgpy.errors import DeviceError
from wgpy.tun.netlink import Link, LinkGone, LinkNews, Netlink, OtherNews, read_news


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


def test_news_of_links_and_of_all_else() -> None:
    said = News(message(16, 5) + message(17, 6), message(24, 7), message(16, 5, is_up=False))
    assert read_news(said) == [  # type: ignore[arg-type]
        LinkNews(Link(5, "wg0", 1420, True)),
        LinkGone(6),
        OtherNews(),
        LinkNews(Link(5, "wg0", 1420, False)),
    ]


def test_where_news_were_lost_something_may_have_changed() -> None:
    assert read_news(News(errno.ENOBUFS, message(17, 6))) == [OtherNews(), LinkGone(6)]  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_news(News(errno.EBADF))  # type: ignore[arg-type]

"""Which news make which sources wrong; with a table of routes of the test's own."""

from __future__ import annotations

import socket
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.keys import PrivateKey
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import HandshakeCompleted
from wgpy.runtime.paths import _Ways
from wgpy.runtime.udp import Local
from wgpy.tun.netlink import AddressGone, Link, LinkGone, LinkNews, News, OtherNews, RouteNews

HERE, OTHER, THERE = (socket.inet_aton(text) for text in ("192.0.2.1", "198.51.100.1", "203.0.113.5"))
DOCKER = RouteNews(socket.inet_aton("172.17.0.0"), 16)
DEFAULT = RouteNews(bytes(4), 0)
FIRST, SECOND = 3, 4


class Scene:
    """A peer that was heard on the first interface; the route to it is what the test says."""

    def __init__(self, leaves_by: int | None = FIRST) -> None:
        self.leaves_by = leaves_by
        self.lookups: list[tuple[bytes, bytes, int]] = []
        key = PrivateKey.generate().public_key
        config = InterfaceConfig(
            PrivateKey.generate(), fwmark=7, peers=[PeerConfig(key, endpoint=Endpoint("203.0.113.5", 9))]
        )
        self.engine = Engine(config, random=lambda count: bytes(count), wall_clock=float)
        self.peer = self.engine._peers[key]
        self.peer.local = Local(4, struct.pack("=I4s4s", FIRST, HERE, HERE))
        self.forgotten_paths = 0
        udp = SimpleNamespace(interface=None, forget_paths=self.forget_paths)
        device: Any = SimpleNamespace(engine=self.engine, udp=udp)
        self.ways = _Ways(device, self)  # type: ignore[arg-type]
        self.key = key

    def forget_paths(self) -> None:
        self.forgotten_paths += 1

    def interface_towards(self, destination: bytes, *, source: bytes, mark: int = 0) -> int | None:
        self.lookups.append((destination, source, mark))
        return self.leaves_by

    async def has_source_after(self, *news: News) -> bool:
        await self.ways.take(list(news))
        return self.peer.local is not None


@pytest.mark.parametrize(
    "news",
    [DOCKER, RouteNews(bytes(16), 0), AddressGone(OTHER), LinkNews(Link(9, "docker0", 1500, True))],
    ids=["a route to elsewhere", "a route of the other family", "another address", "a link that came up"],
)
async def test_what_does_not_concern_the_way_is_not_even_looked_at(news: News) -> None:
    scene = Scene(leaves_by=SECOND)
    assert await scene.has_source_after(news)
    assert not scene.lookups
    assert scene.forgotten_paths == 1


@pytest.mark.parametrize(
    "news",
    [DEFAULT, LinkGone(9), LinkNews(Link(9, "eth9", 1500, False)), OtherNews()],
    ids=["its route", "a link went", "a link is down", "a rule"],
)
async def test_the_source_goes_when_the_way_leaves_elsewhere_and_stays_when_not(news: News) -> None:
    scene = Scene()
    assert await scene.has_source_after(news)
    assert scene.lookups == [(THERE, HERE, 7)]
    scene.leaves_by = SECOND
    assert not await scene.has_source_after(news)


async def test_the_source_goes_with_its_address_and_when_there_is_no_way() -> None:
    assert not await Scene().has_source_after(AddressGone(HERE))
    assert not await Scene(leaves_by=None).has_source_after(DEFAULT)


async def test_where_answers_leave_by_another_interface_from_the_start_that_one_is_compared_with() -> None:
    scene = Scene(leaves_by=SECOND)
    scene.ways.watch(HandshakeCompleted(scene.key, Endpoint("203.0.113.5", 9), False))
    scene.ways._note(*scene.engine.source_of(scene.key))  # type: ignore[misc]
    assert await scene.has_source_after(DEFAULT)
    assert await scene.has_source_after(OtherNews())
    scene.leaves_by = FIRST
    assert not await scene.has_source_after(DEFAULT)


async def test_a_whole_table_of_routes_is_one_look() -> None:
    scene = Scene(leaves_by=SECOND)
    assert not await scene.has_source_after(*[DOCKER] * 1000)
    assert len(scene.lookups) == 1


async def test_a_zone_or_a_bound_socket_says_by_which_interface() -> None:
    scene = Scene(leaves_by=SECOND)
    scene.ways._device.udp.interface = "eth0"
    assert await scene.has_source_after(DEFAULT)
    assert not scene.lookups

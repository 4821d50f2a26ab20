"""Following addresses and routes: when the local address that a peer is answered from is to be forgotten.

A peer that reached us at an address is answered from it, by whatever interface the routes say. That is over when the
address is gone, or when the way to the peer has changed: then it leaves by another interface than it did, and the
system knows better which address belongs there. News of anything else change nothing.

The sockets stay in the namespace in which they were made, wherever the TUN interface goes; so do these news.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import trio

from wgpy.protocol.events import Event, HandshakeCompleted
from wgpy.runtime.udp import Local
from wgpy.tun.netlink import (
    PATHS,
    AddressGone,
    LinkGone,
    LinkNews,
    Netlink,
    OtherNews,
    RouteNews,
    read_news,
    subscribe,
)

if TYPE_CHECKING:
    from wgpy.config import Endpoint
    from wgpy.keys import PublicKey
    from wgpy.runtime.device import Device
    from wgpy.tun.netlink import News

__all__ = ["follow_paths"]

_log = logging.getLogger("wgpy.device")

# Lookups, of some 30 µs each, between two turns of everybody else.
_LOOKUPS_AT_ONCE: Final = 32
# Seconds between two looks: routes of a whole table may change at once.
_PAUSE: Final = 0.1
# More news than these at once are read as "anything may have changed".
_MOST_NEWS: Final = 64
_WAYS_KEPT: Final = 16384


async def follow_paths(device: Device) -> None:
    """Keep the sources of a device right, until cancelled."""
    try:
        news, netlink = subscribe(PATHS), Netlink()
    except OSError as problem:
        # A sandbox: what is not told shows itself when a datagram cannot be sent.
        _log.debug("addresses and routes are not followed: %s", problem)
        return
    with contextlib.closing(news), contextlib.closing(netlink):
        ways = _Ways(device, netlink)
        device.watchers.append(ways.watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ways.note_new_ones)
            while True:
                await trio.lowlevel.wait_readable(news)
                try:
                    await ways.take(read_news(news))
                except Exception:
                    # One victim: the tunnel works without these news.
                    _log.exception("news of addresses and routes could not be read; please report this")
                await trio.sleep(_PAUSE)


class _Ways:
    """By which interface datagrams leave to peers that are answered from a certain address."""

    def __init__(self, device: Device, netlink: Netlink) -> None:
        self._device = device
        self._netlink = netlink
        self._known: dict[tuple[bytes, bytes], int] = {}
        # Those who have just shaken hands: how do answers leave to them?
        self._new: dict[PublicKey, None] = {}
        self._has_new = trio.Event()

    def watch(self, event: Event) -> None:
        """See `Device.watchers`."""
        if isinstance(event, HandshakeCompleted):
            self._new[event.peer] = None
            self._has_new.set()

    async def note_new_ones(self) -> None:
        """Look up the ways to new peers, in their own time."""
        while True:
            await self._has_new.wait()
            self._has_new = trio.Event()
            while self._new:
                for public_key in list(self._new)[:_LOOKUPS_AT_ONCE]:
                    del self._new[public_key]
                    found = self._device.engine.source_of(public_key)
                    if found is not None:
                        self._note(*found)
                await trio.sleep(_PAUSE)

    def _note(self, endpoint: Endpoint, local: object) -> None:
        if isinstance(local, Local) and (key := _key(endpoint, local)) not in self._known:
            interface = self._look_up(*key)
            if interface is not None:
                self._remember(key, interface)

    def _remember(self, key: tuple[bytes, bytes], interface: int) -> None:
        if len(self._known) >= _WAYS_KEPT:
            self._known.clear()
        self._known[key] = interface

    def _look_up(self, destination: bytes, source: bytes) -> int | None:
        return self._netlink.interface_towards(destination, source=source, mark=self._device.engine.fwmark)

    async def take(self, items: list[News]) -> None:
        """Forget the sources that these news have made wrong."""
        gone = {item.address for item in items if isinstance(item, AddressGone)}
        routes = [item for item in items if isinstance(item, RouteNews)]
        # The kernel tells of routes that went with their link by telling of the link.
        is_any = len(routes) > _MOST_NEWS or any(
            isinstance(item, OtherNews | LinkGone) or (isinstance(item, LinkNews) and not item.link.is_up)
            for item in items
        )
        self._device.udp.forget_paths()
        engine = self._device.engine
        looked_up = 0
        for public_key, endpoint, local in engine.sources():
            if not isinstance(local, Local):
                continue
            address = endpoint.packed[:-2]
            if local.address in gone:
                engine.forget_source(public_key, local)
            elif is_any or any(route.concerns(address) for route in routes):
                if not self._leaves_as_before(endpoint, local):
                    engine.forget_source(public_key, local)
                looked_up += 1
                if looked_up % _LOOKUPS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _leaves_as_before(self, endpoint: Endpoint, local: Local) -> bool:
        if "%" in endpoint.host or self._device.udp.interface is not None:
            return True  # the zone, or the socket, says by which
        key = _key(endpoint, local)
        interface = self._look_up(*key)
        # What was not looked up before has the interface that the peer was heard on to compare with.
        before = self._known.pop(key, local.interface)
        if interface != before:
            return False
        self._remember(key, before)
        return True


def _key(endpoint: Endpoint, local: Local) -> tuple[bytes, bytes]:
    return endpoint.packed[:-2], local.address

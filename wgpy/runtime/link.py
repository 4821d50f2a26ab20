"""Following the interface: up and down, MTU, deletion, and a move into another network namespace.

In our own namespace the kernel tells (rtnetlink). After a move it does not, so a short-lived thread goes and looks once
per second: it enters the namespace of the interface, asks, and ends. No descriptor of a namespace is kept, because it
would keep a deleted namespace alive, and the interface with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

import trio

from wgpy.errors import DeviceError
from wgpy.tun.netlink import LINKS, Link, LinkGone, LinkNews, Netlink, read_news, subscribe

if TYPE_CHECKING:
    import socket

    from wgpy.runtime.device import Device
    from wgpy.tun.linux import LinuxTun

__all__ = ["follow_link"]

_log = logging.getLogger("wgpy.device")

_CLONE_NEWNET: Final = 0x40000000
# Between two looks out of turn, seconds: datagrams for an interface that is down may come in floods.
_LEAST_PAUSE: Final = 0.1
_OWN_NAMESPACE: Final = "/proc/self/ns/net"


async def follow_link(device: Device, tun: LinuxTun) -> None:
    """Keep the device in step with its interface, until cancelled.

    Raises:
        TunnelClosed: the interface was deleted.
    """
    with contextlib.closing(subscribe(LINKS)) as news:
        follower = _Follower(device, tun, news)
        device.look_at_link = follower.look
        while True:
            link = _find_here(tun)
            if link is None:
                await follower.follow_elsewhere()
                read_news(news)  # of an interface that was away
                continue
            tun.name, tun.index = link.name, link.index
            follower.adopt(link)
            await follower.follow_here()


class _Follower:
    """What is known of one interface, from the kernel's news and from looks out of turn."""

    def __init__(self, device: Device, tun: LinuxTun, news: socket.socket) -> None:
        self._device = device
        self._tun = tun
        self._news = news
        self._looked_at = -_LEAST_PAUSE
        # The news that wait were written before the last look.
        self._is_ahead = False

    async def look(self) -> None:
        """See how the link is now; right after the last look, wait a moment first."""
        await trio.sleep_until(self._looked_at + _LEAST_PAUSE)
        if self._device.engine.is_up:
            return
        await self._look()

    async def _look(self) -> None:
        self._looked_at = trio.current_time()
        link = _find_here(self._tun)
        self._is_ahead = link is not None
        link = link or await trio.to_thread.run_sync(_look_elsewhere, self._tun)
        if link is not None:
            self._tun.name = link.name
            self.adopt(link)
        elif not self._device.engine.is_up:
            # Without the privilege to look: packets that cannot come do no harm, keepalives that stop do.
            self._device.set_up(True)

    async def follow_here(self) -> None:
        """Return when the link is no longer in our namespace."""
        tun = self._tun
        while True:
            await trio.lowlevel.wait_readable(self._news)
            items = read_news(self._news)
            is_old, self._is_ahead = self._is_ahead, False
            for item in items:
                match item:
                    case LinkNews(link=link) if link.index == tun.index:
                        # Old news of a link that was down would end the handshake that the look has let begin.
                        current = _find_here(tun) if is_old else link
                        if current is not None:
                            tun.name = current.name
                            self.adopt(current)
                    case LinkGone(index=index) if index == tun.index:
                        tun.current_name()  # raises if it was deleted
                        return

    async def follow_elsewhere(self) -> None:
        """Return when the link has come back."""
        _log.info("%s was moved to another network namespace", self._tun.name)
        while _find_here(self._tun) is None:
            await self._look()
            await trio.sleep(1)

    def adopt(self, link: Link) -> None:
        """Bring the device to the state of the link."""
        device = self._device
        if link.mtu != device.packets.mtu:
            device.set_mtu(link.mtu)
        if link.is_up != device.engine.is_up:
            _log.info("%s is %s", link.name, "up" if link.is_up else "down")
            device.set_up(link.is_up)


def _find_here(tun: LinuxTun) -> Link | None:
    """The link, if it is in our namespace."""
    name = tun.current_name()
    descriptor = tun.open_namespace()
    if descriptor is not None:
        try:
            is_here = os.path.sameopenfile(descriptor, _own_namespace())
        finally:
            os.close(descriptor)
        if not is_here:
            return None
    with contextlib.suppress(DeviceError), Netlink() as netlink:
        return netlink.link(name=name)
    return None


def _own_namespace() -> int:
    """A descriptor of our own namespace; one per process, because we never leave it."""
    global _own
    if _own is None:
        _own = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    return _own


_own: int | None = None


def _look_elsewhere(tun: LinuxTun) -> Link | None:
    """Ask in the namespace of the link, from a thread that ends with the question."""
    found: list[Link] = []

    def look() -> None:
        descriptor = tun.open_namespace()
        if descriptor is None:
            return
        try:
            entered = ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) == 0
        finally:
            os.close(descriptor)
        if entered:
            with contextlib.suppress(DeviceError), Netlink() as netlink:
                found.append(netlink.link(name=tun.current_name()))

    thread = threading.Thread(target=look, name="wgpy-namespace")
    thread.start()
    thread.join()
    return found[0] if found else None

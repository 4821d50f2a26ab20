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
from wgpy.runtime import world
from wgpy.tun.netlink import Link, LinkGone, LinkNews, Netlink, OtherNews, read_news, subscribe

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
    asked_at = -_LEAST_PAUSE

    async def look() -> None:
        nonlocal asked_at
        if trio.current_time() - asked_at >= _LEAST_PAUSE:
            asked_at = trio.current_time()
            await _look(device, tun)

    device.look_at_link = look
    with contextlib.closing(subscribe()) as news:
        while True:
            link = _find_here(tun)
            if link is None:
                await _follow_elsewhere(device, tun)
                read_news(news)  # of an interface that was away
                continue
            tun.name, tun.index = link.name, link.index
            _adopt(device, link)
            await _follow_here(device, tun, news)


async def _look(device: Device, tun: LinuxTun) -> None:
    """See how the link is now."""
    link = _find_here(tun) or await trio.to_thread.run_sync(_look_elsewhere, tun)
    if link is not None:
        tun.name = link.name
        _adopt(device, link)
    elif not device.engine.is_up:
        # Without the privilege to look: packets that cannot come do no harm, keepalives that stop do.
        device.set_up(True)


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


async def _follow_here(device: Device, tun: LinuxTun, news: socket.socket) -> None:
    """Return when the link is no longer in our namespace."""
    while True:
        await trio.lowlevel.wait_readable(news)
        is_reconfigured = False
        for item in read_news(news):
            match item:
                case LinkNews(link=link) if link.index == tun.index:
                    tun.name = link.name
                    _adopt(device, link)
                case LinkGone(index=index) if index == tun.index:
                    tun.current_name()  # raises if it was deleted
                    return
                case OtherNews():
                    is_reconfigured = True
        if is_reconfigured:
            # Addresses or routes changed: the sources that we learnt may be gone, and so may the path MTUs (B51).
            device.engine.forget_sources(world.now())
            device.udp.forget_paths()


def _adopt(device: Device, link: Link) -> None:
    if link.mtu != device.packets.mtu:
        device.set_mtu(link.mtu)
    if link.is_up != device.engine.is_up:
        _log.info("%s is %s", link.name, "up" if link.is_up else "down")
        device.set_up(link.is_up)


async def _follow_elsewhere(device: Device, tun: LinuxTun) -> None:
    """Return when the link has come back."""
    _log.info("%s was moved to another network namespace", tun.name)
    while _find_here(tun) is None:
        await _look(device, tun)
        await trio.sleep(1)


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

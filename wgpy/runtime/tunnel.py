"""What most people call: an interface from a configuration, as an asynchronous context.

    async with open_interface("wg0", config) as device: ...

opens the TUN interface and the sockets, sets addresses and routes, and closes all of it at the end, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from typing import TYPE_CHECKING

import trio

from wgpy.config import Endpoint, InterfaceConfig
from wgpy.constants import DEFAULT_MTU
from wgpy.errors import ConfigError
from wgpy.protocol.engine import Engine
from wgpy.runtime import world
from wgpy.runtime.addressing import address_link, with_mark
from wgpy.runtime.device import Device
from wgpy.runtime.link import follow_link
from wgpy.runtime.udp import UdpSockets
from wgpy.tun.linux import open_tun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from wgpy.tun.base import PacketDevice

__all__ = ["open_device", "open_interface", "resolve_endpoints", "resolve_endpoints_now"]

_log = logging.getLogger("wgpy.device")


@contextlib.asynccontextmanager
async def open_device(
    config: InterfaceConfig, packets: PacketDevice, *, keylog: Callable[[str], None] | None = None
) -> AsyncIterator[Device]:
    """Run a tunnel over any packet device: the door for stacks and tests of your own.

    Args:
        config: keys, peers and port; endpoints may be names.
        packets: where inner packets come from and go to; closed at the end.
        keylog: called with one line per handshake secret.

    Raises:
        DeviceError: the port is taken or the mark not allowed.
        ConfigError: an endpoint's name has no address.
        TunnelClosed: the packet device ended.

    Example:
        >>> async def main():
        ...     key = wgpy.PrivateKey.generate()
        ...     async with wgpy.open_device(wgpy.InterfaceConfig(key), wgpy.MemoryDevice("demo")) as device:
        ...         return device.udp.port > 0
        >>> trio.run(main)
        True
    """
    with contextlib.ExitStack() as undo:
        undo.callback(packets.close)
        config = await resolve_endpoints(config)
        engine = Engine(config, random=world.random, wall_clock=world.wall_clock, keylog=keylog, mtu=packets.mtu)
        udp = UdpSockets(config.listen_port, fwmark=config.fwmark)
        undo.pop_all()
    device = Device(engine, packets, udp)
    with _unwrapped():
        async with trio.open_nursery() as nursery:
            await nursery.start(_run, device)
            yield device
            nursery.cancel_scope.cancel()


async def _run(device: Device, *, task_status: trio.TaskStatus[None]) -> None:
    await device.run(task_status=task_status)


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the one exception of a group as it is: that there is a nursery inside is nobody's business."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        alone = group.exceptions[0]
        alone.__suppress_context__ = True
        raise alone from alone.__cause__


@contextlib.asynccontextmanager
async def open_interface(
    name: str, config: InterfaceConfig, *, keylog: Callable[[str], None] | None = None
) -> AsyncIterator[Device]:
    """Hold a TUN interface with the addresses, MTU and routes of the configuration (needs CAP_NET_ADMIN).

    Routes follow AllowedIPs unless the configuration says `Table = off`. Hooks (`PostUp` and the like) and DNS are for
    wg-quick: they are kept in the configuration and not acted upon.

    Args:
        name: of the interface, 1 to 15 characters.
        config: endpoints may be names.
        keylog: called with one line per handshake secret.

    Raises:
        DeviceError: no TUN, no permission, the name or the port is taken.
        ConfigError: an endpoint's name has no address, or there is no such routing table.
        TunnelClosed: the interface was deleted.

    Example:
        >>> async def main():
        ...     config = wgpy.InterfaceConfig.from_ini(pathlib.Path("wg0.conf").read_text())
        ...     async with wgpy.open_interface("wg0", config) as device:
        ...         async for event in device.events():
        ...             print(event)
        >>> trio.run(main)  # doctest: +SKIP
    """
    config = with_mark(config)
    tun = open_tun(name, mtu=config.mtu or DEFAULT_MTU)
    tun.on_warning = _log.warning
    async with open_device(config, tun, keylog=keylog) as device:
        with address_link(tun.index, config), _unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow_link, device, tun)
                yield device
                nursery.cancel_scope.cancel()


async def resolve_endpoints(config: InterfaceConfig) -> InterfaceConfig:
    """The same configuration with addresses in place of names, without holding up other tasks.

    Raises:
        ConfigError: a name has no address.
    """
    if not any(peer.endpoint and peer.endpoint.is_name for peer in config.peers):
        return config
    return await trio.to_thread.run_sync(resolve_endpoints_now, config)


def resolve_endpoints_now(config: InterfaceConfig) -> InterfaceConfig:
    """The same configuration with addresses in place of names.

    Raises:
        ConfigError: a name has no address.
    """
    peers = list(config.peers)
    for position, peer in enumerate(peers):
        if peer.endpoint is None or not peer.endpoint.is_name:
            continue
        try:
            found = socket.getaddrinfo(
                peer.endpoint.host, peer.endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_ADDRCONFIG
            )
        except OSError as problem:
            raise ConfigError(
                f"cannot resolve {peer.endpoint.host!r}: {problem.strerror or problem}",
                field=f"Peer[{position + 1}].Endpoint",
            ) from None
        host, port = found[0][4][:2]
        peers[position] = dataclasses.replace(peer, endpoint=Endpoint(str(host), int(port)))
    return dataclasses.replace(config, peers=tuple(peers))

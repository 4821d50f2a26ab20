"""What most people call: a tunnel from a configuration, as an asynchronous context.

    async with open_tunnel(config) as tunnel: ...            packets end in this process: tunnel.net, no privilege
    async with open_interface("wg0", config) as device: ...  packets end in a TUN interface of the system

The one opens the sockets and a TCP/IP stack, the other the sockets and the TUN interface with addresses and routes; all
of it is closed at the end, however it ends.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
from typing import TYPE_CHECKING, Final

import trio

from wgpy.constants import DEFAULT_MTU, TRANSPORT_OVERHEAD
from wgpy.errors import ConfigError, LocalProtocolError
from wgpy.netstack.constants import LINGER, MINIMUM_MTU_IPV6
from wgpy.netstack.icmp import Icmp
from wgpy.netstack.stack import Stack
from wgpy.protocol.engine import Engine
from wgpy.runtime import world
from wgpy.runtime.addressing import address_link, with_mark
from wgpy.runtime.device import Device
from wgpy.runtime.link import follow_link
from wgpy.runtime.net import Net
from wgpy.runtime.netdevice import NetDevice
from wgpy.runtime.realms import Realms, follow, lasting_secret
from wgpy.runtime.resolving import resolve_again, resolve_endpoints
from wgpy.runtime.udp import UdpSockets, path_mtu
from wgpy.tun.linux import open_tun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from wgpy.config import InterfaceConfig, PeerConfig
    from wgpy.protocol.events import Event
    from wgpy.protocol.realm import Realm
    from wgpy.tun.base import PacketDevice

__all__ = [
    "Tunnel",
    "open_device",
    "open_interface",
    "open_tunnel",
]

_log = logging.getLogger("wgpy.device")

# IP and UDP headers around every datagram of the tunnel.
_OUTER_HEADERS: Final = {4: 28, 6: 48}


class Tunnel:
    """A tunnel that ends in this process; what `open_tunnel` gives.

    A tunnel may hold further realms: networks with addresses and peers of their own behind the same port and private
    key. Their addresses may overlap, and nothing crosses from one to the other. A realm is a tunnel like this one.

    Attributes:
        net: dial, listen, ping and resolve through the tunnel.
        device: the WireGuard side: events, statistics, and peers of all realms.

    Example:
        >>> async def main():
        ...     key = wgpy.PrivateKey.generate()
        ...     async with wgpy.open_tunnel(wgpy.InterfaceConfig(key, addresses=["10.0.0.1/24"])) as tunnel:
        ...         realm = tunnel.add_realm(["10.0.0.1/24"])  # the same address, another network
        ...         realm.add_peer(wgpy.PeerConfig(wgpy.PrivateKey.generate().public_key, allowed_ips=["10.0.0.2/32"]))
        ...         [listener] = await realm.net.open_tcp_listeners(80)
        ...         return listener.address
        >>> trio.run(main)
        (None, 80)
    """

    def __init__(self, device: Device, net: Net, realms: Realms, realm: Realm | None = None) -> None:
        """Use `open_tunnel` or `add_realm`."""
        self.device = device
        self.net = net
        self._realms = realms
        self._realm = realm

    def add_peer(self, peer: PeerConfig) -> None:
        """Add a peer to this network while traffic flows; see `Device` for changing and removing it.

        Raises:
            LocalProtocolError: there is one with this key already, here or in another realm.
            ConfigError: its endpoint is a name, or there are too many peers.
        """
        self.device.add_peer(peer, self._realm)

    def add_realm(self, addresses: Sequence[str], *, mtu: int | None = None, dns: Sequence[str] = ()) -> Tunnel:
        """Open another network behind the same port and private key. It costs no task and no buffer while it is idle.

        Args:
            addresses: ours in it, such as "10.0.0.1/24".
            mtu: greatest inner packet in it; None for that of the tunnel.
            dns: name servers asked through it.
        """
        ours = [str(ipaddress.ip_interface(address)) for address in addresses]
        realm, net = self._realms.add(ours, mtu=mtu or self.device.packets.mtu, servers=dns)
        return Tunnel(self.device, net, self._realms, realm)

    def remove_realm(self, realm: Tunnel) -> None:
        """Forget a realm with its peers; whoever waits on one of its streams gets ClosedResourceError.

        Raises:
            LocalProtocolError: it is the tunnel itself.
        """
        if realm._realm is None:
            raise LocalProtocolError("the network of the tunnel itself is closed by leaving its context")
        self._realms.remove(realm._realm)

    def events(self) -> trio.MemoryReceiveChannel[Event]:
        """See `Device.events`."""
        return self.device.events()


@contextlib.asynccontextmanager
async def open_tunnel(
    config: InterfaceConfig,
    *,
    keylog: Callable[[str], None] | None = None,
    interface: str | None = None,
    resolves_again: bool = True,
    copies_ecn: bool = True,
) -> AsyncIterator[Tunnel]:
    r"""Hold a tunnel whose packets end in this process: no TUN interface, no privilege, no change to the system.

    Streams that were closed still deliver what was sent on them when the context is left, for a few seconds; what is
    open then is reset, and whoever waits on it gets ClosedResourceError.

    Args:
        config: needs addresses; endpoints may be names. `DNS =` are the name servers asked through the tunnel.
        keylog: called with one line per handshake secret.
        interface: of the system, or VRF, that the datagrams leave by; None for whatever the routes say.
        resolves_again: while a peer does not answer, ask again for the address of its endpoint's name.
        copies_ecn: let congestion marks cross the tunnel (RFC 6040), and mark handshakes AF41.

    Raises:
        ConfigError: there is no address.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
        DeviceError: the port is taken or the mark not allowed.

    Example:
        >>> async def main():
        ...     config = wgpy.InterfaceConfig.from_ini(pathlib.Path("office.conf").read_bytes())
        ...     async with wgpy.open_tunnel(config) as tunnel:
        ...         async with await tunnel.net.open_tcp_stream("wiki.office.example", 80) as stream:
        ...             await stream.send_all(b"GET / HTTP/1.0\r\nHost: wiki.office.example\r\n\r\n")
        ...             async for chunk in stream:
        ...                 print(chunk.decode("latin-1"), end="")
        >>> trio.run(main)  # doctest: +SKIP
    """
    if not config.addresses:
        raise ConfigError("a tunnel that ends in this process needs an address", field="Address")
    mtu = config.mtu or _choose_mtu(await resolve_endpoints(config))
    addresses = [str(address) for address in config.addresses]
    if mtu < MINIMUM_MTU_IPV6 and any(":" in address for address in addresses):
        _log.warning("no IPv6 inside the tunnel: its MTU of %d is below %d", mtu, MINIMUM_MTU_IPV6)
        addresses = [address for address in addresses if ":" not in address]
    secret = lasting_secret(config.private_key)
    stack = Stack(addresses=addresses, mtu=mtu, random=world.random, secret=secret, epoch=world.epoch())
    icmp = Icmp(stack, random=world.random)
    packets = NetDevice("netstack", stack)
    opened = open_device(
        config,
        packets,
        keylog=keylog,
        interface=interface,
        resolves_again=resolves_again,
        copies_ecn=copies_ecn,
    )
    async with opened as device:
        stack.may_send = device.engine.may_send
        device.last_packets = packets.last_batch
        realms = Realms(device)
        # A session that came or went changes what the tunnel will carry.
        device.watchers += [functools.partial(follow, packets=packets, engine=device.engine), realms.changed]
        net = Net(
            packets,
            icmp,
            addresses=[address.partition("/")[0] for address in addresses],
            servers=config.dns,
            search=config.dns_search,
            refusal=device.engine.refusal,
        )
        with _unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(packets.run_timer)
                nursery.start_soon(realms.read_packets)
                nursery.start_soon(realms.run_timer)
                yield Tunnel(device, net, realms)
                with trio.move_on_after(LINGER):
                    await packets.until_drained()
                    await realms.until_drained()
                nursery.cancel_scope.cancel()


def _choose_mtu(config: InterfaceConfig) -> int:
    """What fits into one packet on the way to every peer; at most the usual."""
    mtu = DEFAULT_MTU
    for peer in config.peers:
        if peer.endpoint is not None:
            outer = path_mtu(peer.endpoint)
            if outer is not None:
                mtu = min(mtu, outer - _OUTER_HEADERS[peer.endpoint.version] - TRANSPORT_OVERHEAD)
    return mtu


@contextlib.asynccontextmanager
async def open_device(
    config: InterfaceConfig,
    packets: PacketDevice,
    *,
    keylog: Callable[[str], None] | None = None,
    interface: str | None = None,
    resolves_again: bool = True,
    copies_ecn: bool = True,
) -> AsyncIterator[Device]:
    """Run a tunnel over any packet device: the door for stacks and tests of your own.

    Args:
        config: keys, peers and port; endpoints may be names.
        packets: where inner packets come from and go to; closed at the end.
        keylog: called with one line per handshake secret.
        interface: of the system, or VRF, that the datagrams leave by; None for whatever the routes say.
        resolves_again: while a peer does not answer, ask again for the address of its endpoint's name.
        copies_ecn: let congestion marks cross the tunnel (RFC 6040), and mark handshakes AF41.

    Raises:
        DeviceError: the port is taken, the mark not allowed, or there is no such interface.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
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
        resolved = await resolve_endpoints(config)
        engine = Engine(
            resolved,
            random=world.random,
            wall_clock=world.wall_clock,
            keylog=keylog,
            mtu=packets.mtu,
            copies_ecn=copies_ecn,
        )
        udp = UdpSockets(config.listen_port, fwmark=config.fwmark, interface=interface)
        undo.pop_all()
    device = Device(engine, packets, udp)
    with _unwrapped():
        async with trio.open_nursery() as nursery:
            await nursery.start(_run, device)
            if resolves_again:
                nursery.start_soon(resolve_again, device, config)
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
    name: str,
    config: InterfaceConfig,
    *,
    keylog: Callable[[str], None] | None = None,
    interface: str | None = None,
    resolves_again: bool = True,
    admits: Callable[[memoryview], bool] | None = None,
    copies_ecn: bool = True,
) -> AsyncIterator[Device]:
    """Hold a TUN interface with the addresses, MTU and routes of the configuration (needs CAP_NET_ADMIN).

    Routes follow AllowedIPs unless the configuration says `Table = off`. Hooks (`PostUp` and the like) and DNS are for
    wg-quick: they are kept in the configuration and not acted upon.

    Args:
        name: of the interface, 1 to 15 characters.
        config: endpoints may be names.
        keylog: called with one line per handshake secret.
        interface: of the system, or VRF, that the datagrams leave by; None for whatever the routes say.
        resolves_again: while a peer does not answer, ask again for the address of its endpoint's name.
        admits: asked for each packet of a peer, before the system sees it: False drops it (`DropReason.NOT_ADMITTED`).
        copies_ecn: let congestion marks cross the tunnel (RFC 6040), and mark handshakes AF41.

    Raises:
        DeviceError: no TUN, no permission, the name or the port is taken.
        EndpointUnresolved: an endpoint's name has no address, or no name server answered.
        ConfigError: there is no such routing table.
        TunnelClosed: the interface was deleted.

    Example:
        >>> async def main():
        ...     config = wgpy.InterfaceConfig.from_ini(pathlib.Path("wg0.conf").read_bytes())
        ...     async with wgpy.open_interface("wg0", config) as device:
        ...         async for event in device.events():
        ...             print(event)
        >>> trio.run(main)  # doctest: +SKIP
    """
    config = with_mark(config)
    tun = open_tun(name, mtu=config.mtu or DEFAULT_MTU)
    tun.on_warning = _log.warning
    tun.admits = admits
    opened = open_device(
        config, tun, keylog=keylog, interface=interface, resolves_again=resolves_again, copies_ecn=copies_ecn
    )
    async with opened as device:
        with address_link(tun.index, config), _unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow_link, device, tun)
                yield device
                nursery.cancel_scope.cancel()

"""The one tunnel to the hub: found, opened, renewed in time, found again.

    endpoints (names) -> resolve, both families -> race: one address soon after the other, until a handshake completes
    userspace: wgpy.open_tunnel, no privilege     tun: wgpy.open_interface, NET_ADMIN; if it cannot be opened: userspace

Sessions are renewed by a timer of our own, 105 to 110 s after the last handshake, so that the age shown stays below two
minutes. Nothing listens on the pod's network; inside the tunnel only the hub's addresses are spoken to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import random as random_module
import socket
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

import wgpy
from edge_agent import supervise
from edge_agent.contract import why_no_hub
from edge_agent.dial import dial_from, watch_over
from edge_agent.packetfilter import PacketFilter

if TYPE_CHECKING:
    from edge_agent.contract import HubConfig
    from edge_agent.facts import Facts
    from edge_agent.settings import Settings
    from edge_agent.state import Identity

__all__ = ["HubTunnel", "Udp", "check_endpoints", "keepalive_of", "open_hub_tunnel", "outer_mtu", "resolve"]

_log = logging.getLogger("edge.tunnel")

REKEY_AFTER: Final = (105.0, 110.0)
RESOLVE_AGAIN: Final = 300.0
# Seconds for each address in the first, second and every later round.
RACE: Final = (0.25, 1.0, 3.0)
ALONE: Final = 5.0
DEFAULT_MTU: Final = 1420
LEAST_MTU: Final = 1280
# Outer IPv6 and UDP headers, and those of WireGuard: 80 octets fit every path.
_OVERHEAD: Final = 80
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_RETRY_RESOLVE: Final = (1.0, 30.0)
# A hub that is gone without a word ends its connections within 14 seconds; one that is only slow does not.
_WATCHED: Final = wgpy.Keepalive(idle=5, interval=3, probes=3)

Resolve = Callable[[Sequence[str]], Awaitable[list[wgpy.Endpoint]]]


class Udp(Protocol):
    """A UDP socket that knows the hub only."""

    async def send(self, payload: bytes) -> object:
        """Send to the hub."""
        ...

    async def receive(self) -> bytes:
        """The next datagram of the hub."""
        ...


class _NetUdp:
    """`Udp` over a socket of the tunnel's own stack; it may be opened before the hub was found."""

    def __init__(self, udp: Any, hub: tuple[str, int]) -> None:
        self._udp = udp
        self._hub = hub

    async def send(self, payload: bytes) -> None:
        await self._udp.send_to(payload, self._hub)

    async def receive(self) -> bytes:
        while True:
            payload, sender = await self._udp.receive_from()
            if sender == self._hub:
                return bytes(payload)


class _KernelUdp:
    """`Udp` over a socket of the system, in tun mode."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected

    async def send(self, payload: bytes) -> None:
        await self._socket.send(payload)

    async def receive(self) -> bytes:
        return await self._socket.recv(65536)


class HubTunnel:
    """A tunnel with the hub at its other end.

    Attributes:
        config: the newest configuration.
    """

    def __init__(
        self,
        settings: Settings,
        config: HubConfig,
        facts: Facts,
        device: wgpy.Device,
        net: Any,
        *,
        psk: bytes = bytes(32),
        packets: PacketFilter | None = None,
        resolve: Resolve | None = None,
        unit: Callable[[], float] = random_module.random,
    ) -> None:
        """Use `open_hub_tunnel`.

        Args:
            settings: of the chart.
            config: of the hub.
            facts: are told of handshakes, endpoint and MTU.
            device: the WireGuard side.
            net: the stack of `wgpy.open_tunnel`, None in tun mode.
            psk: of the hub.
            packets: what the kernel may see in tun mode; it is told of our sockets.
            resolve: addresses of the endpoints.
            unit: numbers from 0 to 1.
        """
        self._settings = settings
        self.config = config
        self._facts = facts
        self._device = device
        self._net = net
        self._psk = psk
        self._filter = packets or _filter_of(settings, config)
        self._resolve = resolve or globals()["resolve"]
        self._unit = unit
        self._hub = wgpy.PublicKey(config.hub_key)
        self._last_good: wgpy.Endpoint | None = None
        self._completed = trio.Event()
        self._lost = trio.Event()
        self._is_searching = False

    # --- inside the tunnel -------------------------------------------------------------------------------------------

    def hub_addresses(self) -> tuple[str, ...]:
        """The hub's, inside the tunnel."""
        return tuple(one for one in (self.config.hub_address, self.config.hub_address6) if one)

    async def dial(self, port: int) -> trio.abc.HalfCloseableStream:
        """A connection to the hub; OSError says why not."""
        if self._net is not None:
            stream: trio.abc.HalfCloseableStream = await self._net.open_tcp_stream(
                self.config.hub_address, port, keepalive=_WATCHED
            )
            return stream
        bound = self._filter.opened(self._filter.tcp_ports)
        return await dial_from(self.config.address, self.config.hub_address, port, bound=bound)

    async def listen(self, port: int) -> list[Any]:
        """Listeners on our addresses of the tunnel."""
        if self._net is not None:
            listeners: list[Any] = await self._net.open_tcp_listeners(port, keepalive=_WATCHED)
            return listeners
        found: list[trio.SocketListener] = []
        for address in (self.config.address, self.config.address6):
            if address:
                found += await trio.open_tcp_listeners(port, host=address)
        for listener in found:
            watch_over(listener.socket)  # what is accepted inherits it
            # The kernel takes packets for any of its addresses on any interface: not here, the pod's network is none.
            with contextlib.suppress(PermissionError):  # Linux before 5.7 wants a capability for it that we lack
                listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._settings.interface.encode())
        return found

    @contextlib.asynccontextmanager
    async def open_udp(self, port: int) -> AsyncIterator[Udp]:
        """A socket for datagrams to and from one port of the hub."""
        if self._net is not None:
            async with await self._net.open_udp() as udp:
                yield _NetUdp(udp, (self.config.hub_address, port))
            return
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
            await kernel.bind((self.config.address, 0))
            self._filter.opened(self._filter.udp_ports)(kernel.getsockname()[1])
            await kernel.connect((self.config.hub_address, port))
            yield _KernelUdp(kernel)

    # --- settings ----------------------------------------------------------------------------------------------------

    def apply(self, config: HubConfig) -> None:
        """Go on with a changed configuration; sessions and streams stay."""
        moved = config.endpoints != self.config.endpoints
        self.config = config
        self._device.update_peer(self._peer())
        if self._facts.mtu > self.most_mtu():
            self.set_mtu(self.most_mtu())
        if moved:
            self.search()

    def most_mtu(self) -> int:
        """What settings and hub allow."""
        return self._settings.mtu or max(min(self.config.mtu, DEFAULT_MTU), LEAST_MTU)

    def set_mtu(self, mtu: int) -> None:
        """Send no larger inner packets from now on."""
        if mtu != self._facts.mtu:
            _log.info("inner MTU is %d", mtu)
        self._facts.mtu = mtu
        self._device.set_mtu(mtu)
        self._facts.note()

    def _peer(self) -> wgpy.PeerConfig:
        allowed = [f"{address}/{128 if ':' in address else 32}" for address in self.hub_addresses()]
        return wgpy.PeerConfig(
            self._hub,
            allowed_ips=allowed,
            preshared_key=wgpy.PresharedKey(self._psk),
            persistent_keepalive=keepalive_of(self._settings, self.config),
        )

    # --- finding the hub ---------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Look for the hub anew: it does not answer, or has moved. Who looks already sees the newest endpoints."""
        if not self._is_searching:
            self._lost.set()

    async def run(self) -> None:
        """Find the hub and keep the session young, for ever."""
        async with trio.open_nursery() as nursery:
            supervise.start_kept(nursery, "events of the tunnel", self._follow_events)
            supervise.start_kept(nursery, "renewal of sessions", self._rekey)
            supervise.start_kept(nursery, "look at the hub's name", self._follow_names)
            is_first = True
            while True:
                if not is_first:
                    await self._lost.wait()
                    self._facts.reopened += 1
                    with contextlib.suppress(OSError):
                        self._device.rebind(0)
                self._lost = trio.Event()
                is_first = False
                await self._find()

    async def _find(self) -> None:
        self._is_searching = True
        delay, most = _RETRY_RESOLVE
        turn = 0
        try:
            while True:
                candidates = await self._candidates(is_desperate=turn >= len(RACE))
                if not candidates:
                    self._facts.endpoint = ""
                    await trio.sleep(delay * (0.5 + self._unit() / 2))
                    delay = min(delay * 2, most)
                    continue
                dwell = ALONE if len(candidates) == 1 else RACE[min(turn, len(RACE) - 1)]
                turn += 1
                for candidate in candidates:
                    if await self._try(candidate, dwell):
                        return
        finally:
            self._is_searching = False

    async def _candidates(self, *, is_desperate: bool) -> list[wgpy.Endpoint]:
        """Addresses that can be the hub; where it answered before comes last, for the new place may be a mistake."""
        try:
            found = await self._resolve(self.config.endpoints)
        except OSError as problem:
            _log.warning("BootstrapUnreachable: no address for %s: %s", ", ".join(self.config.endpoints), problem)
            found, is_desperate = [], True
        may_be_loopback = _may_be_loopback(self._settings)
        possible: list[wgpy.Endpoint] = []
        for one in found:
            if reason := why_no_hub(one.host, one.port, may_be_loopback=may_be_loopback):
                _log.warning("%s is not asked: %s", one, reason)
            else:
                possible.append(one)
        if self._last_good is not None and self._last_good not in possible and (is_desperate or not possible):
            possible.append(self._last_good)
        return possible

    async def _try(self, candidate: wgpy.Endpoint, dwell: float) -> bool:
        completed = self._completed
        _log.debug("trying %s for %g s", candidate, dwell)
        self._device.start_handshake(self._hub, at=candidate)
        with trio.move_on_after(dwell):
            await completed.wait()
        if not completed.is_set():
            return False
        outer = outer_mtu(candidate)
        if not self._settings.mtu and outer is not None:
            self.set_mtu(max(min(self.most_mtu(), outer - _OVERHEAD), LEAST_MTU))
        return True

    async def _follow_events(self) -> None:
        async for event in self._device.events():
            match event:
                case wgpy.HandshakeCompleted(endpoint=endpoint):
                    self._facts.handshake_at = trio.current_time()
                    self._facts.handshakes += 1
                    self._facts.endpoint = str(endpoint)
                    self._last_good = endpoint
                    completed, self._completed = self._completed, trio.Event()
                    completed.set()
                case wgpy.EndpointChanged(endpoint=endpoint):
                    self._facts.endpoint = str(endpoint)
                case _:
                    continue
            self._facts.note()

    async def _rekey(self) -> None:
        """A handshake 105 to 110 s after the last, whoever started that."""
        while True:
            last = self._facts.handshake_at
            if last is None:
                await self._completed.wait()
                continue
            least, most = REKEY_AFTER
            completed = self._completed
            with trio.move_on_at(last + least + self._unit() * (most - least)):
                await completed.wait()
            if completed.is_set():
                continue
            if not self._is_searching:
                self._device.start_handshake(self._hub)
            # The protocol tries again by itself every 5 s; here once more if even that came to nothing.
            with trio.move_on_after(most):
                await completed.wait()

    async def _follow_names(self) -> None:
        """Look every five minutes whether the hub's names still lead to where we are."""
        while True:
            await trio.sleep(RESOLVE_AGAIN)
            if self._is_searching:
                continue
            with contextlib.suppress(OSError):
                candidates = await self._resolve(self.config.endpoints)
                if self._facts.endpoint and self._facts.endpoint not in map(str, candidates):
                    _log.info("the hub moved from %s", self._facts.endpoint)
                    self.search()

    def count(self) -> None:
        """Bring the octet counters of the facts up to date."""
        peer = self._device.statistics().peers.get(self._hub)
        if peer is not None:
            self._facts.rx_bytes, self._facts.tx_bytes = peer.rx_bytes, peer.tx_bytes


@contextlib.asynccontextmanager
async def open_hub_tunnel(
    settings: Settings, identity: Identity, config: HubConfig, facts: Facts
) -> AsyncIterator[HubTunnel]:
    """Open the tunnel in the mode that was asked for, or in userspace where that cannot be.

    Raises:
        DeviceError: not even a UDP socket can be had.
    """
    facts.mode, facts.mode_reason = settings.mode, None
    facts.mtu = settings.mtu or max(min(config.mtu, DEFAULT_MTU), LEAST_MTU)
    addresses = [f"{config.address}/32", *([f"{config.address6}/128"] if config.address6 else [])]
    allowed = [f"{config.hub_address}/32", *([f"{config.hub_address6}/128"] if config.hub_address6 else [])]
    peer = wgpy.PeerConfig(
        wgpy.PublicKey(identity.hub_key),
        allowed_ips=allowed,
        preshared_key=wgpy.PresharedKey(identity.psk),
        persistent_keepalive=keepalive_of(settings, config),
    )
    interface = wgpy.InterfaceConfig(
        wgpy.PrivateKey(identity.private_key), addresses=addresses, mtu=facts.mtu, peers=[peer]
    )
    async with contextlib.AsyncExitStack() as stack:
        net = None
        packets = _filter_of(settings, config)
        if settings.mode == "tun":
            try:
                device = await stack.enter_async_context(
                    wgpy.open_interface(settings.interface, interface, admits=packets.admits)
                )
            except OSError as problem:
                facts.mode, facts.mode_reason = "userspace", problem.strerror or str(problem)
                _log.warning("no TUN interface (%s): going on in userspace", facts.mode_reason)
        if facts.mode == "userspace":
            tunnel = await stack.enter_async_context(wgpy.open_tunnel(interface))
            device, net = tunnel.device, tunnel.net
        yield HubTunnel(settings, config, facts, device, net, psk=identity.psk, packets=packets)


def _filter_of(settings: Settings, config: HubConfig) -> PacketFilter:
    ours = [one for one in (config.address, config.address6) if one]
    hub = [one for one in (config.hub_address, config.hub_address6) if one]
    return PacketFilter(ours, hub, settings.proxy_port)


def check_endpoints(settings: Settings, config: HubConfig) -> None:
    """Refuse a configuration that sends us where no hub can be.

    Raises:
        ValueError: names the endpoint.
    """
    for text in config.endpoints:
        endpoint = wgpy.Endpoint.parse(text)
        if reason := why_no_hub(endpoint.host, endpoint.port, may_be_loopback=_may_be_loopback(settings)):
            raise ValueError(f"endpoints: {text}: {reason}")


def _may_be_loopback(settings: Settings) -> bool:
    """Whether the hub was configured to be on this machine, or there is no word of where it is."""
    host = (urllib.parse.urlsplit(settings.hub_url).hostname or "localhost").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def keepalive_of(settings: Settings, config: HubConfig) -> int:
    """Seconds between keepalives: the shorter of what the chart and the hub want; 0 of the hub is no wish."""
    return min(settings.keepalive, config.keepalive or settings.keepalive)


async def resolve(endpoints: Sequence[str]) -> list[wgpy.Endpoint]:
    """All addresses behind the endpoints, the families in turn; those without a route come last.

    Raises:
        OSError: not one of them has an address.
    """
    found: list[wgpy.Endpoint] = []
    problem: OSError | None = None
    for text in endpoints:
        endpoint = wgpy.Endpoint.parse(text)
        if not endpoint.is_name:
            found.append(endpoint)
            continue
        try:
            infos = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            problem = error
            continue
        found += [wgpy.Endpoint(str(info[4][0]), endpoint.port) for info in infos]
    found = list(dict.fromkeys(found))
    routed = [one for one in found if outer_mtu(one) is not None] or found
    if not routed:
        raise problem or OSError("no endpoint is known")
    first = [one for one in routed if one.version == routed[0].version]
    second = [one for one in routed if one.version != routed[0].version]
    mixed = [one for pair in zip(first, second, strict=False) for one in pair]
    return mixed + first[len(second) :] + second[len(first) :]


def outer_mtu(endpoint: wgpy.Endpoint) -> int | None:
    """MTU of the way to an address as the system knows it; None when there is no way."""
    family, level, option = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU)
        if endpoint.version == 6
        else (socket.AF_INET, socket.IPPROTO_IP, _IP_MTU)
    )
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((endpoint.host, endpoint.port))
            return probe.getsockopt(level, option)
    except OSError:
        return None

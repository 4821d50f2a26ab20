"""Two nets joined: by a link in memory with weather of its own, or by WireGuard over loopback UDP.

a 10.0.0.1, fd00::1  ---  b 10.0.0.2, fd00::2, which is the name server of a
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from tests.netstack.hosts import arriving, without_padding
from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.keys import PrivateKey
from wgpy.netstack.icmp import Icmp
from wgpy.netstack.stack import Stack
from wgpy.runtime.net import Net
from wgpy.runtime.netdevice import NetDevice
from wgpy.runtime.tunnel import Tunnel, open_tunnel

A, B = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")


@dataclass
class Weather:
    """What happens to packets on the way: seconds and probabilities."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    repeats: float = 0.0
    seed: int = 1


class Host:
    """One end of a link.

    Attributes:
        seen: packets that it sent.
        swallow: whether one that it sends never arrives.
    """

    def __init__(self, addresses: tuple[str, ...], servers: tuple[str, ...], *, mtu: int, seed: str) -> None:
        randbytes = random.Random(seed).randbytes
        self.stack = Stack(addresses=addresses, mtu=mtu, random=randbytes)
        self.icmp = Icmp(self.stack, random=randbytes)
        self.device = NetDevice(seed, self.stack)
        self.net = Net(self.device, self.icmp, addresses=addresses, servers=servers)
        self.seen: list[bytes] = []
        self.swallow: Callable[[bytes], bool] = lambda packet: False


@contextlib.asynccontextmanager
async def joined_nets(weather: Weather | None = None, *, mtu: int = 1420) -> AsyncIterator[tuple[Host, Host]]:
    """Two hosts and a link between them; closed at the end."""
    weather = weather or Weather()
    a = Host(A, B[:1], mtu=mtu, seed=f"a{weather.seed}")
    b = Host(B, (), mtu=mtu, seed=f"b{weather.seed}")
    chance = random.Random(weather.seed)
    async with trio.open_nursery() as nursery:
        for host, other in ((a, b), (b, a)):
            nursery.start_soon(host.device.run_timer)
            nursery.start_soon(_carry, host, other, weather, chance)
        yield a, b
        nursery.cancel_scope.cancel()
    a.device.close()
    b.device.close()


async def _carry(host: Host, other: Host, weather: Weather, chance: random.Random) -> None:
    sender, receiver = trio.open_memory_channel[tuple[float, list[bytes]]](math.inf)

    async def deliver() -> None:
        late: list[tuple[float, bytes]] = []
        async for due, packets in receiver:
            await trio.sleep_until(due)
            now = []
            for packet in packets:
                if host.swallow(packet) or chance.random() < weather.loss:
                    continue
                if chance.random() < weather.repeats:
                    now.append(packet)
                if weather.jitter and chance.random() < 0.2:
                    late.append((due + chance.random() * weather.jitter, packet))
                else:
                    now.append(packet)
            now += [packet for moment, packet in late if moment <= due]
            late = [one for one in late if one[0] > due]
            other.device.write_batch([arriving(packet) for packet in now])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        while True:
            await host.device.wait_readable()
            packets = [without_padding(row) for slab in host.device.read_batch() for row in slab]
            host.seen += packets
            if packets:
                sender.send_nowait((trio.current_time() + weather.delay, packets))


@contextlib.asynccontextmanager
async def joined_tunnels(**more: object) -> AsyncIterator[tuple[Tunnel, Tunnel]]:
    """Two tunnels; `a` knows where `b` is, `b` learns where `a` is."""
    a_key, b_key = PrivateKey.generate(), PrivateKey.generate()
    to_a = PeerConfig(a_key.public_key, allowed_ips=["10.0.0.1/32", "fd00::1/128"])
    b_config = InterfaceConfig(b_key, peers=[to_a], addresses=["10.0.0.2/24", "fd00::2/64"], **more)  # type: ignore[arg-type]
    async with open_tunnel(b_config) as b:
        to_b = PeerConfig(
            b_key.public_key,
            allowed_ips=["10.0.0.2/32", "fd00::2/128"],
            endpoint=f"127.0.0.1:{b.device.udp.port}",
        )
        a_config = InterfaceConfig(
            a_key,
            peers=[to_b],
            addresses=["10.0.0.1/24", "fd00::1/64"],
            dns=["10.0.0.2"],
            **more,  # type: ignore[arg-type]
        )
        async with open_tunnel(a_config) as a:
            yield a, b


def guest_of(b: Tunnel) -> InterfaceConfig:
    """The configuration of a third tunnel, 10.0.0.3, that `b` was told about."""
    key = PrivateKey.generate()
    b.device.add_peer(PeerConfig(key.public_key, allowed_ips=["10.0.0.3/32"]))
    b_key = b.device.engine.private_key
    assert b_key is not None
    endpoint = f"127.0.0.1:{b.device.udp.port}"
    to_b = PeerConfig(b_key.public_key, allowed_ips=["10.0.0.2/32"], endpoint=endpoint)
    return InterfaceConfig(key, addresses=["10.0.0.3/24"], peers=[to_b])

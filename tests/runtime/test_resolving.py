"""Names become addresses before the engine sees them, and again while a peer does not answer; R4."""

from __future__ import annotations

import socket
import threading

import pytest
import trio
import trio.testing

from wgpy.config import Endpoint, InterfaceConfig, PeerConfig
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey, PublicKey
from wgpy.runtime.device import Device
from wgpy.runtime.resolving import EndpointUnresolved, resolve_endpoints
from wgpy.runtime.tunnel import open_device, open_tunnel
from wgpy.tun.memory import MemoryDevice

PEERS = [
    PeerConfig(PublicKey(bytes([n]) * 32), endpoint=endpoint)
    for n, endpoint in enumerate([None, Endpoint("192.0.2.1", 1), Endpoint("vpn.example", 51820)])
]


async def test_names_are_resolved_and_addresses_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        asked.append((host, port))
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::5", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    config = await resolve_endpoints(InterfaceConfig(peers=PEERS))
    assert [peer.endpoint for peer in config.peers] == [
        None,
        Endpoint("192.0.2.1", 1),
        Endpoint("2001:db8::5", 51820),
    ]
    assert asked == [("vpn.example", 51820)]
    assert await resolve_endpoints(config) is config


async def test_a_name_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror, match=r"cannot resolve 'vpn.example': Name or service not known") as raised:
        await resolve_endpoints(InterfaceConfig(peers=PEERS))
    assert isinstance(raised.value, EndpointUnresolved)
    assert not isinstance(raised.value, ConfigError), "the configuration may be right, and the name server away"
    assert raised.value.errno == socket.EAI_NONAME
    assert raised.value.field == "Peer[3].Endpoint"


async def test_what_can_be_no_name_is_an_error_of_the_configuration() -> None:
    endpoint = Endpoint(f"{'x' * 64}.example", 51820)
    with pytest.raises(ConfigError, match="no name") as raised:
        await resolve_endpoints(InterfaceConfig(peers=[PeerConfig(PublicKey(bytes(32)), endpoint=endpoint)]))
    assert raised.value.field == "Peer[1].Endpoint"


async def test_opening_can_be_cancelled_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    is_asked, may_answer = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def getaddrinfo(*arguments: object, **more: object) -> None:
        token.run_sync_soon(is_asked.set)
        may_answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    key = PrivateKey(bytes(range(32)))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with open_tunnel(InterfaceConfig(key, addresses=["10.0.0.1/32"], peers=PEERS)):
                    raise AssertionError("it has no address to go to")

            nursery.start_soon(hold)
            await is_asked.wait()
            scope.cancel()
    assert scope.cancelled_caught
    assert not may_answer.is_set(), "nobody waited for the answer"
    may_answer.set()


def place(device: Device) -> Endpoint | None:
    [peer] = device.statistics().peers.values()
    return peer.endpoint


@pytest.mark.parametrize("resolves_again", [True, False])
async def test_r4_the_name_of_a_silent_peer_is_looked_at_again_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, *, resolves_again: bool
) -> None:
    addresses = ["127.0.0.2"]

    def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (addresses[-1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    autojump_clock.autojump_threshold = 0.02  # looking up takes a moment of real time
    peer = PeerConfig(PublicKey(b"\2" * 32), endpoint=Endpoint("vpn.example", 9), persistent_keepalive=25)
    config = InterfaceConfig(PrivateKey(b"\1" * 32), peers=[peer])
    async with open_device(config, MemoryDevice("x"), resolves_again=resolves_again) as device:
        assert place(device) == Endpoint("127.0.0.2", 9)
        addresses.append("127.0.0.3")
        await trio.sleep(70)
        assert place(device) == Endpoint("127.0.0.3" if resolves_again else "127.0.0.2", 9)


async def test_r4_a_peer_that_answers_stays_where_it_roamed_to(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = []
    ours, theirs = PrivateKey(b"\1" * 32), PrivateKey(b"\2" * 32)
    autojump_clock.autojump_threshold = 0.02
    there = InterfaceConfig(theirs, peers=[PeerConfig(ours.public_key, allowed_ips=["10.0.0.1/32"])])
    async with open_device(there, MemoryDevice("there")) as other:

        def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", other.udp.port))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        peer = PeerConfig(theirs.public_key, endpoint=Endpoint("vpn.example", 9), persistent_keepalive=25)
        here = InterfaceConfig(ours, peers=[peer])
        async with open_device(here, MemoryDevice("here"), resolves_again=True) as device:
            await trio.sleep(300)
            [statistics] = device.statistics().peers.values()
            assert statistics.has_session
            assert asked == ["vpn.example"], "once, at the beginning"

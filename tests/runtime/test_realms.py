"""Tunnel.add_realm: a hub with many networks behind one socket, and edges that all have the same address."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from wgpy.config import InterfaceConfig, PeerConfig
from wgpy.errors import LocalProtocolError
from wgpy.keys import PrivateKey
from wgpy.protocol.events import SilenceEnded
from wgpy.runtime.streams import NetStream
from wgpy.runtime.tunnel import Tunnel, open_tunnel
from wgpy.wire import ip

HUB, EDGE, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


@contextlib.asynccontextmanager
async def open_hub() -> AsyncIterator[Tunnel]:
    """A hub with nothing in its own network."""
    async with open_tunnel(InterfaceConfig(PrivateKey.generate(), addresses=["192.0.0.8/32"])) as hub:
        yield hub


@contextlib.asynccontextmanager
async def open_edge(hub: Tunnel, realm: Tunnel, address: str = EDGE) -> AsyncIterator[Tunnel]:
    """An edge in a realm of the hub."""
    key = PrivateKey.generate()
    realm.add_peer(PeerConfig(key.public_key, allowed_ips=[f"{address}/32"]))
    hub_key = hub.device.engine.private_key
    assert hub_key is not None
    to_hub = PeerConfig(hub_key.public_key, allowed_ips=["10.0.0.0/24"], endpoint=f"127.0.0.1:{hub.device.udp.port}")
    async with open_tunnel(InterfaceConfig(key, addresses=[f"{address}/32"], peers=[to_hub])) as edge:
        yield edge


async def answer_name(tunnel: Tunnel, name: bytes, task_status: trio.TaskStatus[object]) -> None:
    async def handle(stream: NetStream) -> None:
        async with stream:
            await stream.receive_some(1)
            await stream.send_all(name)

    try:
        await tunnel.net.serve_tcp(handle, 7443, task_status=task_status)
    except* (trio.ClosedResourceError, trio.BrokenResourceError):
        pass  # its realm was removed


async def ask(tunnel: Tunnel, host: str) -> bytes:
    async with await tunnel.net.open_tcp_stream(host, 7443) as stream:
        await stream.send_all(b"?")
        answer = b""
        async for chunk in stream:
            answer += chunk
        return answer


async def test_the_same_address_is_another_edge_in_every_realm() -> None:
    """A59: dialling goes to the realm's own edge, and what an edge dials arrives in its own realm."""
    async with open_hub() as hub, trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        realms = [hub.add_realm([f"{HUB}/24"]) for _ in range(3)]
        edges = [await stack.enter_async_context(open_edge(hub, realm)) for realm in realms]
        for number, (realm, edge) in enumerate(zip(realms, edges, strict=True)):
            await nursery.start(answer_name, edge, b"edge %d" % number)
            await nursery.start(answer_name, realm, b"hub %d" % number)
        for number, edge in enumerate(edges):
            assert await ask(edge, HUB) == b"hub %d" % number
        for number, realm in enumerate(realms):
            assert await ask(realm, EDGE) == b"edge %d" % number
        nursery.cancel_scope.cancel()


async def test_peers_of_one_realm_cannot_reach_each_other_and_the_hub_forwards_nothing() -> None:
    """A59: both send to the hub's key whatever they like; the hub's stack takes what is for the hub."""
    async with open_hub() as hub:
        realm = hub.add_realm([f"{HUB}/24"])
        async with open_edge(hub, realm) as edge, open_edge(hub, realm, OTHER) as other, trio.open_nursery() as nursery:
            await nursery.start(answer_name, other, b"other")
            await nursery.start(answer_name, realm, b"hub")
            assert await ask(edge, HUB) == b"hub"
            assert await ask(other, HUB) == b"hub"
            with pytest.raises((OSError, trio.TooSlowError)), trio.fail_after(0.3):
                await ask(edge, OTHER)
            nursery.cancel_scope.cancel()


async def test_a_realm_is_removed_live_and_the_others_go_on() -> None:
    async with open_hub() as hub:
        first, second = hub.add_realm([f"{HUB}/24"]), hub.add_realm([f"{HUB}/24"])
        async with open_edge(hub, first) as edge, open_edge(hub, second) as kept, trio.open_nursery() as nursery:
            await nursery.start(answer_name, kept, b"kept")
            await nursery.start(answer_name, second, b"second")
            await nursery.start(answer_name, first, b"first")
            assert await ask(edge, HUB) == b"first"
            assert await ask(kept, HUB) == b"second"
            stuck = await second.net.open_tcp_stream(EDGE, 7443)
            with pytest.RaisesGroup(trio.ClosedResourceError):
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(stuck.receive_some)
                    await trio.testing.wait_all_tasks_blocked()
                    hub.remove_realm(second)
            assert await ask(edge, HUB) == b"first"
            assert len(hub.device.statistics().peers) == 1
            with pytest.raises(LocalProtocolError):
                hub.remove_realm(hub)
            nursery.cancel_scope.cancel()


async def test_a_large_answer_crosses_a_realm_whole() -> None:
    octets = bytes(range(256)) * 8192
    async with open_hub() as hub:
        realm = hub.add_realm([f"{HUB}/24"])
        async with open_edge(hub, realm) as edge, trio.open_nursery() as nursery:
            await nursery.start(answer_name, edge, octets)
            await nursery.start(answer_name, realm, octets[::-1])
            assert await ask(edge, HUB) == octets[::-1]
            assert await ask(realm, EDGE) == octets
            nursery.cancel_scope.cancel()


async def test_a_ping_through_a_realm_is_answered_until_the_edge_is_gone() -> None:
    async with open_hub() as hub:
        realm = hub.add_realm([f"{HUB}/24"])
        async with open_edge(hub, realm) as edge:
            [listener] = await realm.net.open_tcp_listeners(1)
            async with await edge.net.open_tcp_stream(HUB, 1), await listener.accept():
                assert await realm.net.ping(EDGE) > 0
        with pytest.raises(TimeoutError):
            await realm.net.ping(EDGE, timeout=0.2)


async def test_an_idle_realm_costs_no_task_and_little_memory() -> None:
    async with open_hub() as hub:
        hub.add_realm([f"{HUB}/24", "fd00::1/64"])
        await trio.testing.wait_all_tasks_blocked()  # those of the hub itself have started
        tasks = trio.lowlevel.current_statistics().tasks_living
        gc.collect()
        tracemalloc.start()
        try:
            realms = [hub.add_realm([f"{HUB}/24", "fd00::1/64"]) for _ in range(200)]
            for realm in realms:
                realm.add_peer(PeerConfig(PrivateKey.generate().public_key, allowed_ips=[f"{EDGE}/32"]))
            octets = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert octets / 200 < 24_000


async def test_each_stack_hears_of_the_end_of_its_own_peer_s_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a peer that was unreachable and is not any more, the connections to its addresses resume, and no others."""
    async with open_hub() as hub:
        realms = [hub.add_realm([f"{HUB}/24"]) for _ in range(2)]
        async with open_edge(hub, realms[0]) as edge, open_edge(hub, realms[1]):
            heard: dict[Tunnel, list[Callable[[bytes], bool]]] = {tunnel: [] for tunnel in (hub, edge, *realms)}
            for tunnel, resumed in heard.items():
                stack = tunnel.net._device.stack
                monkeypatch.setattr(stack, "resume", lambda leads_to, now, resumed=resumed: resumed.append(leads_to))
            for tunnel in (hub, edge):
                [peer] = list(tunnel.device.engine._peers.values())[:1]
                tunnel.device._publish([SilenceEnded(peer.public_key)])
            [leads_to] = heard[realms[0]]
            assert leads_to(ip.from_text(EDGE))
            assert not leads_to(ip.from_text(OTHER))
            assert not heard[realms[1]]
            assert all(not leads_to(ip.from_text(EDGE)) for leads_to in heard[hub]), "another network"
            [leads_to] = heard[edge]
            assert leads_to(ip.from_text(HUB))

"""How the hub is found and the session kept young: by a clock that jumps, over a device that takes notes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing

import edge_agent.tunnel
import wgpy
from edge_agent.contract import HubConfig
from edge_agent.facts import Facts
from edge_agent.settings import Settings
from edge_agent.state import Identity
from edge_agent.tunnel import HubTunnel, keepalive_of, open_hub_tunnel, resolve
from tests.edge.fakehub import HUB_PUBLIC, FakeHub

CONFIG = HubConfig.from_document({**FakeHub().public_config(), "config_revision": 1})
FIRST, SECOND = wgpy.Endpoint("192.0.2.1", 51820), wgpy.Endpoint("2001:db8::1", 51820)


class Device:
    """A WireGuard device whose handshakes complete where `reachable` says."""

    def __init__(self) -> None:
        self.reachable: set[str] = {str(FIRST)}
        self.tries: list[tuple[float, str]] = []
        self.rebinds = 0
        self.mtus: list[int] = []
        self.peers: list[wgpy.PeerConfig] = []
        self.at = ""
        self._start = trio.current_time()
        self._send, self._receive = trio.open_memory_channel[Any](100)

    def start_handshake(self, peer: wgpy.PublicKey, *, at: wgpy.Endpoint | None = None) -> None:
        self.at = str(at) if at is not None else self.at
        self.tries.append((round(trio.current_time() - self._start, 2), self.at if at is not None else "again"))
        if self.at in self.reachable:
            self._send.send_nowait(wgpy.HandshakeCompleted(peer, at or wgpy.Endpoint.parse(self.at), is_initiator=True))

    def rebind(self, port: int) -> None:
        self.rebinds += 1

    def set_mtu(self, mtu: int) -> None:
        self.mtus.append(mtu)

    def update_peer(self, peer: wgpy.PeerConfig) -> None:
        self.peers.append(peer)

    async def events(self) -> AsyncIterator[Any]:
        async for event in self._receive:
            yield event


class Names:
    """What the hub's names lead to; an exception where they lead nowhere."""

    def __init__(self, *found: wgpy.Endpoint) -> None:
        self.found: list[wgpy.Endpoint] | OSError = list(found)
        self.asked: list[float] = []
        self._start = trio.current_time()

    async def __call__(self, endpoints: Sequence[str]) -> list[wgpy.Endpoint]:
        self.asked.append(round(trio.current_time() - self._start, 1))
        if isinstance(self.found, OSError):
            raise self.found
        return self.found


async def run_for(
    seconds: float, device: Device, names: Names, facts: Facts, story: Any = None, settings: Settings | None = None
) -> HubTunnel:
    tunnel = HubTunnel(settings or Settings(mtu=1420), CONFIG, facts, device, object(), resolve=names, unit=lambda: 0.5)  # type: ignore[arg-type]
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.run)
            if story is not None:
                nursery.start_soon(story, tunnel)
    return tunnel


async def test_sessions_are_renewed_before_two_minutes_are_over(autojump_clock: trio.testing.MockClock) -> None:
    """A19, D3: 105 to 110 s after the last handshake, by the edge."""
    device, facts = Device(), Facts(mtu=1420)
    await run_for(500, device, Names(FIRST), facts)
    assert device.tries == [(0, str(FIRST))] + [(round(number * 107.5, 2), "again") for number in range(1, 5)]
    assert facts.handshakes == 5


async def test_the_other_family_is_tried_a_quarter_second_later(autojump_clock: trio.testing.MockClock) -> None:
    """D22: both families, raced; the one that answers is kept."""
    device, facts = Device(), Facts(mtu=1420)
    device.reachable = {str(SECOND)}
    await run_for(10, device, Names(FIRST, SECOND), facts)
    assert device.tries == [(0, str(FIRST)), (0.25, str(SECOND))]
    assert facts.endpoint == "[2001:db8::1]:51820"


async def test_patience_grows_while_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    device, names = Device(), Names(FIRST, SECOND)
    device.reachable = set()
    await run_for(12, device, names, Facts(mtu=1420))
    assert [at for at, _ in device.tries] == [0, 0.25, 0.5, 1.5, 2.5, 5.5, 8.5, 11.5]
    assert names.asked == [0, 0.5, 2.5, 8.5], "the name is looked up anew in each round"


async def test_a_name_without_address_is_asked_again_more_slowly(autojump_clock: trio.testing.MockClock) -> None:
    names = Names()
    names.found = OSError("no such name")
    await run_for(60, Device(), names, Facts(mtu=1420))
    gaps = [after - before for before, after in zip(names.asked, names.asked[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert (round(gaps[0], 2), max(gaps) <= 30) == (0.8, True)


async def test_a_lost_hub_gets_a_new_socket_and_a_new_search(autojump_clock: trio.testing.MockClock) -> None:
    """A48, section 4.5: after three misses name, socket and handshake are done anew; once, however often it is said."""
    device, facts = Device(), Facts(mtu=1420)

    async def story(tunnel: HubTunnel) -> None:
        await trio.sleep(20)
        device.reachable = set()
        tunnel.search()
        await trio.sleep(3)
        tunnel.search()
        await trio.sleep(4)
        device.reachable = {str(FIRST)}

    await run_for(60, device, Names(FIRST), facts, story)
    assert (device.rebinds, facts.reopened) == (1, 1)
    assert [at for at, _ in device.tries] == [0, 20, 25, 30]


async def test_a_name_that_leads_elsewhere_is_followed(autojump_clock: trio.testing.MockClock) -> None:
    """Section 10: looked up every five minutes."""
    device, names, facts = Device(), Names(FIRST), Facts(mtu=1420)
    moved = wgpy.Endpoint("192.0.2.9", 51820)

    async def story(_: HubTunnel) -> None:
        await trio.sleep(200)
        names.found = [moved]
        device.reachable = {str(moved)}

    await run_for(400, device, names, facts, story)
    assert facts.endpoint == str(moved)
    assert (300, str(moved)) in device.tries


async def test_the_mtu_fits_the_way_out(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 10: outer minus 80, between 1280 and 1420; a forced one is left alone."""
    for outer, settings, expected in (
        (1500, Settings(), 1420), (1450, Settings(), 1370), (1300, Settings(), 1280), (9000, Settings(), 1420),
        (1400, Settings(mtu=1300), 1300),
    ):  # fmt: skip
        monkeypatch.setattr(edge_agent.tunnel, "outer_mtu", lambda _, outer=outer: outer)
        facts = Facts(mtu=settings.mtu or 1420)
        await run_for(1, Device(), Names(FIRST), facts, settings=settings)
        assert facts.mtu == expected


async def test_a_change_of_keepalive_reaches_the_device_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A41: without restart; what the chart says is the upper bound."""
    device = Device()

    async def story(tunnel: HubTunnel) -> None:
        tunnel.apply(CONFIG.changed_by({"revision": 2, "keepalive": 10}))

    await run_for(1, device, Names(FIRST), Facts(mtu=1420), story)
    assert [peer.persistent_keepalive for peer in device.peers] == [10]
    assert keepalive_of(Settings(), CONFIG) == 25
    assert keepalive_of(Settings(keepalive=7), CONFIG) == 7


async def test_addresses_are_used_as_they_are() -> None:
    found = await resolve(["192.0.2.1:51820", "[2001:db8::1]:51820", "192.0.2.1:51820"])
    assert sorted(map(str, found)) == ["192.0.2.1:51820", "[2001:db8::1]:51820"][: len(found)]
    with pytest.raises(OSError, match="no endpoint is known"):
        await resolve([])


async def test_without_a_device_the_edge_goes_on_in_userspace_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A83, D11: the row shows the reason."""

    @contextlib.asynccontextmanager
    async def no_interface(*_: Any, **__: Any) -> AsyncIterator[None]:
        raise wgpy.DeviceError(2, "no TUN: /dev/net/tun is missing")
        yield

    monkeypatch.setattr(wgpy, "open_interface", no_interface)
    facts = Facts()
    identity = Identity(bytes(wgpy.PrivateKey.generate()), bytes(32), HUB_PUBLIC)
    async with open_hub_tunnel(Settings(mode="tun"), identity, CONFIG, facts) as tunnel:
        assert (facts.mode, facts.mode_reason) == ("userspace", "no TUN: /dev/net/tun is missing")
        assert await tunnel.listen(7443)

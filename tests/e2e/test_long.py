"""Real time with real peers: rekeying after 120 s, expiry after 180 s, roaming and a NAT with a short memory.

All peers are tried side by side, because every one of them has to be waited for.

    left: wgpy ═══ nat (masquerades, forgets after 2 s) ═══ right: the others
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.daemons import LEFT, RIGHT, Addresses, DaemonEnd, connect
from tests.e2e.guest import Guest, KernelEnd, wait_for_neighbour
from tests.e2e.lab import Lab
from tests.machine import why_missing

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PEERS = ["wgpy", *(name for name in ("wireguard-go", "boringtun", "gotatun"))]


def peers_here() -> list[str]:
    """Those that this machine has; `go` stands for wireguard-go in the groups."""
    group = {"wireguard-go": "go", "boringtun": "boringtun", "gotatun": "gotatun"}
    return [name for name in PEERS if name == "wgpy" or why_missing(group[name]) is None]


class Tunnel:
    """A wgpy daemon on the left and another one on the right, with a NAT in between."""

    def __init__(self, lab: Lab, other: str, number: int) -> None:
        self.name = other
        self.left, self.nat, self.right = (lab.namespace(f"{side}{number}") for side in ("left", "nat", "right"))
        lab.cable(self.left, self.nat, names=("out", "in"))
        lab.cable(self.nat, self.right, names=("out", "in"))
        self.left.address("out", "192.168.1.2/24")
        self.nat.address("in", "192.168.1.1/24")
        self.nat.address("out", "192.0.2.1/24")
        self.right.address("in", "192.0.2.2/24")
        self.left.ip("route", "add", "default", "via", "192.168.1.1")
        self.nat.sysctl("net.ipv4.ip_forward=1")
        self.forget_after(120)
        self.nat.run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }")
        self.nat.run("nft", "add rule ip nat post oifname out masquerade random")
        self.here = Addresses("192.168.1.2", "-", "10.77.0.1", "fd00:77::1")
        self.there = Addresses("192.0.2.2", "-", "10.77.0.2", "fd00:77::2")
        self.ours, self.theirs = DaemonEnd(lab, self.left), DaemonEnd(lab, self.right, other)

    def forget_after(self, seconds: int) -> None:
        self.nat.sysctl(
            f"net.netfilter.nf_conntrack_udp_timeout={seconds}",
            f"net.netfilter.nf_conntrack_udp_timeout_stream={seconds}",
        )

    def connect(self, keepalive: int | None = None) -> None:
        self.ours.configure()
        self.theirs.configure()
        self.theirs.add_peer(self.ours.keys.public, *self.here.inner)
        self.ours.add_peer(
            self.theirs.keys.public, *self.there.inner, endpoint=self.there.endpoint(4), keepalive=keepalive
        )
        self.theirs.up("10.77.0.2/24")
        self.ours.up("10.77.0.1/24")
        assert self.ours.ping(self.there.inner4), f"no tunnel with {self.name}"

    def delete_memory(self) -> None:
        """Let the NAT forget every mapping, as a restart of it would."""
        self.nat.run("conntrack", "-F", check=False)


def in_all(tunnels: list[Tunnel], what: str, check: Callable[[Tunnel], bool]) -> None:
    failed = [tunnel.name for tunnel in tunnels if not check(tunnel)]
    assert not failed, f"{what}: failed with {', '.join(failed)}"


@pytest.fixture
def tunnels(lab: Lab) -> list[Tunnel]:
    return [Tunnel(lab, name, number) for number, name in enumerate(peers_here())]


def test_rekeying_expiry_and_nat_in_real_time(tunnels: list[Tunnel]) -> None:
    for tunnel in tunnels:
        tunnel.connect()
    start = time.monotonic()

    # While traffic flows, new keys come about after 120 s, and no echo request is lost over it.
    first = {tunnel.name: tunnel.ours.latest_handshake(tunnel.theirs) for tunnel in tunnels}
    while time.monotonic() - start < 135:
        in_all(tunnels, "ping while the keys change", lambda tunnel: tunnel.ours.ping(tunnel.there.inner4, count=2))
        time.sleep(1)
    ages = {tunnel.name: tunnel.ours.latest_handshake(tunnel.theirs) - first[tunnel.name] for tunnel in tunnels}
    assert all(118 <= age <= 136 for age in ages.values()), f"no rekeying after 120 s: {ages}"

    # The NAT gives another port: the other end follows with the next packet.
    before = {tunnel.name: tunnel.theirs.endpoint_of(tunnel.ours) for tunnel in tunnels}
    for tunnel in tunnels:
        tunnel.delete_memory()
    in_all(tunnels, "ping after the NAT forgot", lambda tunnel: tunnel.ours.ping(tunnel.there.inner4))
    in_all(tunnels, "roaming", lambda tunnel: tunnel.theirs.endpoint_of(tunnel.ours) != before[tunnel.name])
    in_all(tunnels, "ping the other way", lambda tunnel: tunnel.theirs.ping(tunnel.here.inner4))

    # Idle beyond 180 s: the session is dead, and the first packet makes a new one and is delivered.
    handshakes = {tunnel.name: tunnel.ours.handshakes_logged() for tunnel in tunnels}
    time.sleep(60)  # the last passive keepalives, and a handshake where the other end never sends one
    quiet = {tunnel.name: tunnel.ours.transfer(tunnel.theirs)[1] for tunnel in tunnels}
    time.sleep(190)
    in_all(tunnels, "silence", lambda tunnel: tunnel.ours.transfer(tunnel.theirs)[1] == quiet[tunnel.name])
    in_all(tunnels, "ping after expiry", lambda tunnel: tunnel.ours.ping(tunnel.there.inner4))
    in_all(tunnels, "a new handshake", lambda tunnel: tunnel.ours.handshakes_logged() > handshakes[tunnel.name])


def test_b52_a_keepalive_keeps_the_way_through_a_nat_with_a_short_memory(tunnels: list[Tunnel]) -> None:
    """B52: with a keepalive of 1 s the way in stays open; without one it closes, which proves the set-up."""
    for tunnel in tunnels:
        tunnel.forget_after(2)
        tunnel.connect(keepalive=1)
    time.sleep(5)
    in_all(tunnels, "reaching behind the NAT", lambda tunnel: tunnel.theirs.ping(tunnel.here.inner4))
    in_all(tunnels, "seen as the NAT", lambda tunnel: tunnel.theirs.endpoint_of(tunnel.ours).startswith("192.0.2.1:"))
    for tunnel in tunnels:
        tunnel.ours.set("peer", tunnel.theirs.keys.public, "persistent-keepalive", "off")
    time.sleep(6)
    in_all(tunnels, "the NAT forgets", lambda tunnel: not tunnel.theirs.ping(tunnel.here.inner4, limit=1))


@pytest.mark.needs("qemu")
@pytest.mark.parametrize("initiates", [True, False], ids=["initiator", "responder"])
def test_rekeying_and_expiry_with_the_kernel(lab: Lab, guest: Guest, initiates: bool) -> None:
    """One handshake per 120 s under load and none when idle, whoever of us began."""
    host = lab.namespace("left")
    theirs = KernelEnd(lab, guest, host)
    host.address("to-guest", f"{LEFT.outer4}/24")
    wait_for_neighbour(host, RIGHT.outer4)
    ours = DaemonEnd(lab, host)
    initiator, responder = (ours, theirs) if initiates else (theirs, ours)
    at = (LEFT, RIGHT) if initiates else (RIGHT, LEFT)
    connect(initiator, responder, at=at)
    start = time.monotonic()
    assert initiator.ping(at[1].inner4)
    while time.monotonic() - start < 270:
        assert initiator.ping(at[1].inner4, count=2), "lost while the keys change"
        time.sleep(1)
    assert ours.handshakes_logged() == 3
    time.sleep(60)  # the last passive keepalives
    quiet = ours.transfer(theirs)
    time.sleep(190)
    assert ours.transfer(theirs) == quiet
    assert initiator.ping(at[1].inner4)
    assert ours.handshakes_logged() == 4

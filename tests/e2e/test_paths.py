"""Outer paths that change, or are odd (B47 to B51, B54 to B57, B60, B69): addresses, routes, fragments, sizes."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, NEEDS, RIGHT, DaemonEnd, connect
from tests.e2e.lab import Lab, eventually

PEERS = [
    pytest.param("wgpy", id="wgpy"),
    pytest.param("wireguard-go", id="wireguard-go", marks=pytest.mark.needs(NEEDS["wireguard-go"])),
]
VERSIONS = pytest.mark.parametrize("version", [4, 6])
MORE = {4: "192.0.2.11", 6: "2001:db8:1::11"}
LENGTH = {4: 24, 6: 64}


def connected(wire: Wire, other: str = "wgpy", version: int = 4, mtu: int | None = None) -> tuple[DaemonEnd, DaemonEnd]:
    ours, theirs = wire.start("left"), wire.start("right", other)
    connect(ours, theirs, version=version, mtu=mtu)
    assert ours.ping(RIGHT.inner4)
    return ours, theirs


def outer(version: int, host: str, port: int = 51820) -> str:
    return f"{host}:{port}" if version == 4 else f"[{host}]:{port}"


def keep_the_second_address(wire: Wire) -> None:
    """Without this Linux removes every IPv4 address of a subnet together with the first."""
    wire.left.sysctl("net.ipv4.conf.all.promote_secondaries=1")


@VERSIONS
@pytest.mark.parametrize("other", PEERS)
def test_b47_our_address_changes_and_the_other_end_follows(wire: Wire, other: str, version: int) -> None:
    ours, theirs = connected(wire, other, version)
    keep_the_second_address(wire)
    wire.left.address("to-right", f"{MORE[version]}/{LENGTH[version]}")
    wire.left.ip("address", "del", f"{LEFT.outer(version)}/{LENGTH[version]}", "dev", "to-right")
    assert ours.ping(RIGHT.inner4)
    assert theirs.endpoint_of(ours) == outer(version, MORE[version])
    assert ours.handshakes_logged() == 1


@pytest.mark.parametrize("other", PEERS)
def test_b47_from_ipv4_to_ipv6(wire: Wire, other: str) -> None:
    ours, theirs = connected(wire, other)
    ours.set("peer", theirs.keys.public, "endpoint", RIGHT.endpoint(6))
    # wireguard-go sends its first answers from the old source and loses them, between two of its own kind too.
    attempts = 1 if other == "wgpy" else 10
    assert any(ours.ping(RIGHT.inner4, limit=2) for _ in range(attempts))
    assert theirs.endpoint_of(ours) == LEFT.endpoint(6)
    assert any(theirs.ping(LEFT.inner4, limit=2) for _ in range(attempts))


def test_b48_the_endpoint_moves_before_the_source_is_judged(wire: Wire) -> None:
    """B48: the tag proves who sent it; whose inner address it may use is the next question."""
    ours, theirs = connected(wire, "wgpy")
    stranger = wire.lab.host("wg", "genkey")
    theirs.add_peer(wire.lab.host("wg", "pubkey", text_in=stranger).strip(), *LEFT.inner)
    ours.set("listen-port", "5353")
    assert not ours.ping(RIGHT.inner4, limit=1)
    assert theirs.endpoint_of(ours) == LEFT.endpoint(4, 5353)


@VERSIONS
@pytest.mark.parametrize("is_responder", [True, False], ids=["responder", "initiator"])
def test_b49_b30_the_source_is_removed_and_the_next_packet_arrives(
    wire: Wire, version: int, is_responder: bool
) -> None:
    """The address that the peer talks to goes; the very next packet leaves from another one."""
    keep_the_second_address(wire)
    wire.left.address("to-right", f"{MORE[version]}/{LENGTH[version]}")
    ours, theirs = wire.start("left"), wire.start("right")
    if is_responder:
        connect(theirs, ours, version=version, at=(RIGHT, LEFT))
        assert theirs.ping(LEFT.inner4)
    else:
        connect(ours, theirs, version=version)
    assert ours.ping(RIGHT.inner4)
    wire.left.ip("address", "del", f"{LEFT.outer(version)}/{LENGTH[version]}", "dev", "to-right")
    assert ours.ping(RIGHT.inner4, limit=2)
    assert theirs.endpoint_of(ours) == outer(version, MORE[version])


@VERSIONS
def test_b50_answers_come_from_the_address_that_was_hit(wire: Wire, version: int) -> None:
    """B50: four addresses on one port, each contact answered from its own."""
    more = [f"192.0.2.{number}" if version == 4 else f"2001:db8:1::{number}" for number in (31, 32, 33)]
    for address in more:
        wire.left.address("to-right", f"{address}/{LENGTH[version]}")
    ours, theirs = wire.start("left"), wire.start("right", "wgpy")
    connect(theirs, ours, version=version, at=(RIGHT, LEFT))
    assert theirs.ping(LEFT.inner4)
    for address in more:
        theirs.set("peer", ours.keys.public, "endpoint", outer(version, address))
        assert theirs.ping(LEFT.inner4, count=2)
        assert theirs.endpoint_of(ours) == outer(version, address)


def test_b51_a_better_route_is_taken_and_given_up_again(wire: Wire) -> None:
    """Two cables; the peer is at an address behind both, and the second route is the better one while it exists."""
    lab, left, right = wire.lab, wire.left, wire.right
    lab.cable(left, right, names=("second", "back"))
    left.address("second", "198.51.100.1/24")
    right.address("back", "198.51.100.2/24")
    right.ip("link", "add", "home", "type", "bridge")
    right.ip("link", "set", "home", "up")
    right.address("home", "203.0.113.5/32")
    left.ip("route", "add", "203.0.113.5/32", "via", RIGHT.outer4, "metric", "100")
    for namespace in (left, right):
        namespace.sysctl("net.ipv4.conf.all.rp_filter=0")
    ours, theirs = wire.start("left"), wire.start("right")
    ours.configure()
    theirs.configure()
    ours.add_peer(theirs.keys.public, *RIGHT.inner, endpoint="203.0.113.5:51820")
    theirs.add_peer(ours.keys.public, *LEFT.inner)
    ours.up(f"{LEFT.inner4}/24")
    theirs.up(f"{RIGHT.inner4}/24")
    assert ours.ping(RIGHT.inner4)
    assert theirs.endpoint_of(ours) == LEFT.endpoint(4)
    left.ip("route", "add", "203.0.113.5/32", "via", "198.51.100.2", "metric", "10")

    def seen_at(endpoint: str) -> bool:
        return ours.ping(RIGHT.inner4) and theirs.endpoint_of(ours) == endpoint

    eventually("it comes by the better route", lambda: seen_at("198.51.100.1:51820"))
    left.ip("route", "del", "203.0.113.5/32", "via", "198.51.100.2")
    eventually("it is back", lambda: seen_at(LEFT.endpoint(4)))
    assert ours.handshakes_logged() == 1


@VERSIONS
def test_b54_outer_fragments(wire: Wire, version: int) -> None:
    wire.left.ip("link", "set", "to-right", "mtu", "1300")
    wire.right.ip("link", "set", "to-left", "mtu", "1300")
    ours, theirs = connected(wire, version=version)
    assert ours.ping(RIGHT.inner4, size=1392, count=3)
    assert theirs.ping(LEFT.inner4, size=1392, count=3)
    stream(ours, theirs, RIGHT.inner4)


def test_b55_the_only_link_goes_and_comes_back_with_another_address(wire: Wire) -> None:
    """B55: the first packet afterwards arrives; the daemon stays."""
    ours, theirs = connected(wire)
    wire.left.ip("link", "set", "to-right", "down")
    wire.left.ip("address", "flush", "dev", "to-right")
    assert not ours.ping(RIGHT.inner4, limit=1)
    wire.left.ip("link", "set", "to-right", "up")
    wire.left.address("to-right", f"{MORE[4]}/24")
    assert ours.ping(RIGHT.inner4, limit=2)
    assert theirs.endpoint_of(ours) == outer(4, MORE[4])
    assert ours.process.is_running


def stream(client: DaemonEnd, server: DaemonEnd, target: str, *more: str) -> int:
    """Octets that arrived in one second of iperf3."""
    listening = server.inside.spawn("iperf3", "-s", "-1", "--forceflush")
    eventually("iperf3 listens", lambda: "listening" in listening.output)
    report = json.loads(client.run("iperf3", "-c", target, "-t", "1", "-J", *more))
    listening.wait()
    return int(report["end"]["sum_received" if "sum_received" in report["end"] else "sum"]["bytes"])


@VERSIONS
@pytest.mark.parametrize("inner", [1420, 34736])
def test_b56_b57_sizes_and_streams(wire: Wire, version: int, inner: int) -> None:
    """B56, B57: an inner MTU of 1420 and of 34,736, pings of the full size, TCP and UDP both ways."""
    if inner > 1420:
        wire.left.ip("link", "set", "to-right", "mtu", "34816")
        wire.right.ip("link", "set", "to-left", "mtu", "34816")
    ours, theirs = connected(wire, version=version, mtu=inner)
    for end in (ours, theirs):
        end.process.status("VmRSS")
    assert ours.ping(RIGHT.inner4, size=inner - 28, count=20)
    assert theirs.ping(LEFT.inner6, size=inner - 48, count=20)
    for target in (RIGHT.inner4, RIGHT.inner6):
        for arguments in ((), ("-R",), ("-u", "-b", "0"), ("-u", "-b", "0", "-R")):
            assert stream(ours, theirs, target, *arguments) > 100_000
    assert ours.ping(RIGHT.inner4, limit=5)
    assert ours.process.status("VmRSS") < 120_000


def test_b60_a_tunnel_in_a_tunnel_in_a_tunnel(wire: Wire) -> None:
    with contextlib.ExitStack():
        at = (LEFT.outer4, RIGHT.outer4)
        for layer in range(3):
            ours, theirs = wire.start("left"), wire.start("right")
            port = 51820 + layer
            for end in (ours, theirs):
                end.configure(port=port)
            inner = f"10.{80 + layer}.0.1", f"10.{80 + layer}.0.2"
            ours.add_peer(theirs.keys.public, f"{inner[1]}/32", endpoint=f"{at[1]}:{port}")
            theirs.add_peer(ours.keys.public, f"{inner[0]}/32")
            theirs.up(f"{inner[1]}/24", mtu=1420 - 80 * layer)
            ours.up(f"{inner[0]}/24", mtu=1420 - 80 * layer)
            assert ours.ping(inner[1], limit=10)
            at = inner
        assert ours.ping(at[1], size=1200, count=3)


def test_b60_an_endpoint_inside_its_own_tunnel_does_not_run_away(lab: Lab) -> None:
    namespace = lab.namespace("loop")
    ours = DaemonEnd(lab, namespace)
    ours.configure()
    peer = lab.host("wg", "pubkey", text_in=lab.host("wg", "genkey")).strip()
    ours.add_peer(peer, "0.0.0.0/0", endpoint="10.77.0.9:51820")
    ours.up("10.77.0.1/24")
    ours.ping("10.77.0.9", limit=1)
    counted = namespace.run("cat", f"/sys/class/net/{ours.interface}/statistics/tx_bytes")
    assert int(counted) < 70_000
    assert ours.show("listen-port").strip() == "51820"


def sent_octets(end: DaemonEnd, peer: DaemonEnd) -> int:
    return end.transfer(peer)[1]


@VERSIONS
@pytest.mark.parametrize("size", [56, 1372])
def test_b60_a_session_whose_endpoint_moves_into_its_own_tunnel_does_not_run_away(
    wire: Wire, version: int, size: int
) -> None:
    ours, theirs = connected(wire, version=version)
    inside = "10.99.0.9" if version == 4 else "fd00:99::9"
    ours.set("peer", theirs.keys.public, "allowed-ips", "0.0.0.0/0,::/0", "endpoint", outer(version, inside))
    wire.left.ip("route", "add", inside, "dev", ours.interface)
    before = sent_octets(ours, theirs)
    assert not ours.ping(RIGHT.inner4, limit=2, size=size)
    assert sent_octets(ours, theirs) - before < 70_000
    assert ours.show("listen-port").strip() == "51820", "and it answers"


def test_b60_a_loop_through_two_tunnels_does_not_run_away(wire: Wire) -> None:
    """As in the kernel's own netns.sh: each of two daemons sends by the interface of the other."""
    first, second = wire.start("left"), wire.start("left")
    there = wire.start("right")
    connect(first, there)
    assert first.ping(RIGHT.inner4)
    second.configure(port=51821)
    far = DaemonEnd(wire.lab, wire.right)
    far.configure(port=51821)
    second.add_peer(far.keys.public, "10.99.0.0/16", endpoint=f"{RIGHT.outer4}:51821")
    far.add_peer(second.keys.public, "10.88.0.0/16")
    second.up("10.88.0.1/16")
    far.up("10.99.0.1/16")
    wire.left.ip("route", "add", "10.99.0.0/16", "dev", second.interface)
    wire.right.ip("route", "add", "10.88.0.0/16", "dev", far.interface)
    assert second.ping("10.99.0.1", more=("-I", "10.88.0.1"))
    # The first goes by the second, and the second by the first.
    first.set("peer", there.keys.public, "endpoint", "10.99.0.1:51820")
    wire.left.ip("route", "add", f"{RIGHT.outer4}/32", "dev", first.interface)
    first.set("peer", there.keys.public, "allowed-ips", f"{RIGHT.inner4}/32,{RIGHT.outer4}/32")
    before = sent_octets(first, there)
    for _ in range(10):
        first.ping(RIGHT.inner4, limit=1)
    assert sent_octets(first, there) - before < 70_000
    assert second.show("listen-port").strip() == "51821"


def test_b69_bound_sockets_and_marks_choose_the_tunnel_at_once(wire: Wire) -> None:
    ours, theirs = connected(wire)
    beyond = "203.0.113.1"
    ours.set("peer", theirs.keys.public, "allowed-ips", f"{RIGHT.inner4}/32,{beyond}/32")
    theirs.namespace.address(theirs.interface, f"{beyond}/32")
    # No route leads there; a socket bound to the tunnel needs none.
    assert not wire.left.succeeds("ping", "-c", "1", "-W", "5", beyond)
    assert wire.left.succeeds("ping", "-c", "1", "-W", "5", "-I", ours.interface, beyond)
    # Into the tunnel by a mark.
    wire.left.ip("route", "add", beyond, "dev", ours.interface, "src", LEFT.inner4, "table", "77")
    wire.left.ip("rule", "add", "fwmark", "7", "table", "77")
    assert not wire.left.succeeds("ping", "-c", "1", "-W", "5", beyond)
    assert wire.left.succeeds("ping", "-c", "1", "-W", "5", "-m", "7", beyond)
    # And out of it: the tunnel gets nothing of what the mark leads elsewhere.
    wire.left.ip("route", "add", beyond, "dev", ours.interface)
    assert wire.left.succeeds("ping", "-c", "1", "-W", "5", beyond)
    wire.left.ip("route", "replace", "blackhole", beyond, "table", "77")
    assert not wire.left.succeeds("ping", "-c", "1", "-W", "5", "-m", "7", beyond)
    assert wire.left.succeeds("ping", "-c", "1", "-W", "5", beyond)

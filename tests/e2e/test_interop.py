"""Our daemon against the others: both roles, IPv4 and IPv6 outside, with a preshared key and without."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, NEEDS, RIGHT, DaemonEnd, connect
from tests.e2e.guest import Guest, KernelEnd, wait_for_neighbour
from tests.e2e.lab import Lab, eventually

OTHERS = [
    pytest.param("wgpy", id="wgpy"),
    *(pytest.param(name, id=name, marks=pytest.mark.needs(group)) for name, group in NEEDS.items() if name != "kernel"),
]


def transfer(client: DaemonEnd, server: DaemonEnd, target: str, *more: str) -> int:
    """Octets that one iperf3 run of a second carried."""
    listening = server.inside.spawn("iperf3", "-s", "-1", "--forceflush")
    eventually("iperf3 listens", lambda: "listening" in listening.output)
    report = json.loads(client.run("iperf3", "-c", target, "-t", "1", "-J", *more))
    listening.wait()
    return int(report["end"]["sum_received" if "sum_received" in report["end"] else "sum"]["bytes"])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])
@pytest.mark.parametrize("initiates", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("other", OTHERS)
def test_ping_and_handshake(wire: Wire, other: str, initiates: bool, psk: bool, version: int) -> None:
    ours, theirs = wire.start("left"), wire.start("right", other)
    key = wire.lab.host("wg", "genpsk").strip() if psk else None
    initiator, responder = (ours, theirs) if initiates else (theirs, ours)
    at = (LEFT, RIGHT) if initiates else (RIGHT, LEFT)
    connect(initiator, responder, version=version, psk=key, at=at)
    assert initiator.ping(at[1].inner4, count=3)
    assert initiator.ping(at[1].inner6, count=3)
    assert responder.ping(at[0].inner4, count=3, size=1300)
    assert ours.latest_handshake(theirs)
    # boringtun gives the age in place of the time, so ask for octets.
    assert all(theirs.transfer(ours))
    assert all(ours.transfer(theirs))
    assert ours.handshakes_logged() == 1


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("mtu", [1420, 8920])
def test_streams_and_datagrams(wire: Wire, other: str, mtu: int) -> None:
    if mtu > 1420:
        if other == "gotatun":
            mtu = 3900  # its packets have buffers of 4096 octets
        wire.left.ip("link", "set", "to-right", "mtu", "9000")
        wire.right.ip("link", "set", "to-left", "mtu", "9000")
    ours, theirs = wire.start("left"), wire.start("right", other)
    connect(ours, theirs, mtu=mtu)
    assert ours.ping(RIGHT.inner4)
    for target in (RIGHT.inner4, RIGHT.inner6):
        assert transfer(ours, theirs, target) > 1_000_000
        assert transfer(ours, theirs, target, "-R") > 1_000_000
    assert transfer(ours, theirs, RIGHT.inner4, "-P", "4") > 1_000_000
    assert transfer(ours, theirs, RIGHT.inner4, "-u", "-b", "50M", "-l", "1200") > 1_000_000
    assert transfer(ours, theirs, RIGHT.inner4, "-u", "-b", "5M", "-l", "64", "-R") > 100_000


@pytest.mark.needs("qemu")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])
@pytest.mark.parametrize("initiates", [True, False], ids=["initiator", "responder"])
def test_with_the_kernel(lab: Lab, guest: Guest, initiates: bool, psk: bool, version: int) -> None:
    host = lab.namespace("left")
    theirs = KernelEnd(lab, guest, host)
    host.address("to-guest", f"{LEFT.outer4}/24", f"{LEFT.outer6}/64")
    wait_for_neighbour(host, RIGHT.outer(version))
    ours = DaemonEnd(lab, host)
    key = lab.host("wg", "genpsk").strip() if psk else None
    initiator, responder = (ours, theirs) if initiates else (theirs, ours)
    at = (LEFT, RIGHT) if initiates else (RIGHT, LEFT)
    connect(initiator, responder, version=version, psk=key, at=at)
    assert initiator.ping(at[1].inner4, count=3)
    assert initiator.ping(at[1].inner6, count=3)
    assert responder.ping(at[0].inner6, count=3, size=1300)
    assert ours.latest_handshake(theirs)
    assert theirs.latest_handshake(ours)
    assert ours.handshakes_logged() == 1

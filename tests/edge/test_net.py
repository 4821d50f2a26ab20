"""A whole hub and an edge behind a firewall, on a real network stack."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(*words: str) -> None:
    subprocess.run(words, check=True)


@pytest.mark.needs("root", "netns", "tools")
def test_an_edge_needs_no_way_in_and_four_ways_out() -> None:
    """A2, A4, A39: replies only come in, out go hub, WireGuard, DNS and API server; the row says what is closed.

    The relay of A39 is not part of this version: the tunnel comes up when UDP is opened, by itself.
    """
    hub, edge = f"daalu-hub-{os.getpid()}", f"daalu-edge-{os.getpid()}"
    folders = [pathlib.Path("/etc/netns") / name for name in (hub, edge)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text("nameserver 10.98.0.3\n")
    for name in (hub, edge):
        run("ip", "netns", "add", name)
    try:
        run("ip", "-n", hub, "link", "add", "hub0", "type", "veth", "peer", "name", "edge0", "netns", edge)
        run("ip", "netns", "exec", edge, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        run("ip", "-n", edge, "address", "add", "10.98.0.9/24", "dev", "edge0")
        for link in ("lo", "edge0"):
            run("ip", "-n", edge, "link", "set", link, "up")
        done = subprocess.run(
            ["ip", "netns", "exec", hub, sys.executable, "-m", "tests.edge.net_story", edge],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        for name in (hub, edge):
            run("ip", "netns", "del", name)
        for folder in folders:
            (folder / "resolv.conf").unlink()
            folder.rmdir()
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["job"][0] == 0, found["job"]
    assert found["blocked"] == ["redeemed", "NoUdpSeen"]
    assert (found["connected"], found["version"], found["octets"]) == ("connected", "v1.36.3", 2_000_000)
    assert found["left"] == "EdgeShutDown"
    counters = found["counters"]
    assert counters["other"] == 0, "nothing went anywhere else"
    assert all(counters[name] for name in ("hub", "wireguard", "dns", "api", "closed"))

"""Tun mode on a real kernel: an interface, NET_ADMIN alone, and nothing left behind."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NET_ADMIN = 1 << 12


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.mark.needs("root", "tun", "netns")
def test_an_interface_with_net_admin_alone() -> None:
    """A83, A25: joins, answers, has the address and the route to the hub, and takes all of it away at the end."""
    name, other = f"daalu-edge-{os.getpid()}", f"daalu-pod-{os.getpid()}"
    ip("netns", "add", name)
    ip("netns", "add", other)
    try:
        ip("-n", name, "link", "add", "pod0", "type", "veth", "peer", "name", "pod1", "netns", other)
        ip("-n", other, "address", "add", "10.99.0.2/24", "dev", "pod1")
        ip("-n", other, "link", "set", "pod1", "up")
        ip("-n", other, "address", "add", "169.254.169.254/32", "dev", "pod1")
        ip("-n", other, "route", "add", "100.96.0.0/24", "via", "10.99.0.1")
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-m", "tests.edge.tun_story", other],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        ip("netns", "del", name)
        ip("netns", "del", other)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["hello"]["mode"], found["hello"]["mode_reason"]) == ("tun", None), done.stderr[-4000:]
    assert (found["version"], found["octets"], found["code"]) == ("v1.36.3", 300_000, 0)
    assert (found["address"], found["route"]) == ("100.96.0.7", "daalu0")
    assert found["capabilities"] == NET_ADMIN
    assert found["from_outside"] == "ConnectionRefusedError"
    assert (found["other_port"], found["ping"]) == (False, True), "only the proxy's port, and what goes with it"
    assert found["metadata"] == [True, False], "the pod gets there, and forwards, and the hub does not"
    assert (found["left"], found["routes_touched"]) == ([], False)

"""Handshakes never starve data: a flood with right mac1 from 500 addresses beside a tunnel that works.

How much of its throughput is left is a matter of measurement: `python -m benchmarks flood`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, connect
from tests.e2e.lab import Namespace, Process, eventually

RATE, SECONDS = 15_000, 8
ROOT = Path(__file__).parents[2]


def add_flooder(wire: Wire) -> Namespace:
    """A machine with a cable to the right end, which holds all addresses that it floods from."""
    flooder = wire.lab.namespace("flooder")
    wire.lab.cable(flooder, wire.right, names=("uplink", "downlink"))
    flooder.address("uplink", "198.19.0.2/24", "2001:db8:f0::2/64")
    wire.right.address("downlink", "198.19.0.1/24", "2001:db8:f0::1/64")
    for net, there, here in (
        ("198.18.0.0/16", "198.19.0.2", "198.19.0.1"),
        ("2001:db8:f::/48", "2001:db8:f0::2", "2001:db8:f0::1"),
    ):
        flooder.ip("route", "add", "local", net, "dev", "lo")
        flooder.ip("route", "add", "default", "via", here)
        wire.right.ip("route", "add", net, "via", there)
    return flooder


def flood(flooder: Namespace, public_key: str, version: int) -> Process:
    where = "198.19.0.1" if version == 4 else "2001:db8:f0::1"
    return flooder.spawn(
        *(sys.executable, "-P", "-m", "tests.e2e.flooder", public_key, where, "51820", str(RATE), str(SECONDS)),
        env={"PYTHONPATH": str(ROOT)},
    )


def result_of(process: Process) -> dict[str, object]:
    assert process.wait(120) == 0, process.output
    return json.loads(process.output)  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("env", [{}, {"WGPY_WORKERS": "2"}], ids=["one process", "two workers"])
def test_b72_data_and_pings_get_through_a_flood_and_cookie_replies_leave(
    wire: Wire, version: int, env: dict[str, str]
) -> None:
    client, server = wire.start("left", "wireguard-go"), wire.start("right", env=env)
    connect(client, server, version=version)
    eventually("the tunnel carries a ping", lambda: client.ping(RIGHT.inner4, limit=2))
    flooder = add_flooder(wire)
    listener = wire.right.spawn("iperf3", "-s", "--forceflush")
    eventually("iperf3 listens", lambda: "listening" in listener.output)

    process = flood(flooder, server.keys.public, version)
    stream = wire.left.spawn("iperf3", "-c", RIGHT.inner4, "-t", str(SECONDS - 3), "-J")
    pings = client.ping_output(RIGHT.inner4, count=60, limit=10)
    assert " 60 received" in pings
    assert stream.wait(120) == 0, stream.output
    report = json.loads(stream.output)
    assert all(part["sum"]["bytes"] for part in report["intervals"]), "no second in which nothing arrived"
    found = result_of(process)
    replies: dict[str, int] = found["replies"]  # type: ignore[assignment]
    assert replies.get("3", 0) > 100
    assert set(replies) == {"3"}, "no handshake is answered without its cookie"


def test_b72_somebody_new_shakes_hands_in_the_middle_of_a_flood(wire: Wire) -> None:
    """By cookie and mac2, so within two or three tries of five seconds."""
    client, server = wire.start("left", "wireguard-go"), wire.start("right")
    client.configure()
    server.configure()
    server.add_peer(client.keys.public, *LEFT.inner)
    server.up(f"{RIGHT.inner4}/24")
    process = flood(add_flooder(wire), server.keys.public, 4)
    client.add_peer(server.keys.public, *RIGHT.inner, endpoint=RIGHT.endpoint(4), keepalive=1)
    client.up(f"{LEFT.inner4}/24")
    eventually("they have shaken hands", lambda: bool(client.latest_handshake(server)), limit=30)
    assert client.ping(RIGHT.inner4, limit=5)
    result_of(process)

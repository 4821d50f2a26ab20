"""wgpy's own TCP, UDP and ICMP against those of Linux, through a tunnel.

    left  192.0.2.1                                            right 192.0.2.2
    process with open_tunnel, 10.77.0.1, fd00:77::1            TUN 10.77.0.2, fd00:77::2, Linux on top
        \\__ (relay on 127.0.0.1: loses, delays, ...) __ WireGuard __ wireguard-py or wireguard-go

The process on the left has no capability at all and touches nothing of its system but a UDP socket.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, NEEDS, RIGHT, DaemonEnd, Keys
from tests.e2e.lab import Process, eventually, unique
from tests.machine import REPOSITORY

PEERS = [
    pytest.param("wgpy", id="wireguard-py"),
    pytest.param("wireguard-go", id="wireguard-go", marks=pytest.mark.needs(NEEDS["wireguard-go"])),
]
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
MEGABYTE = 2**20


@dataclass
class Bench:
    """A Linux host on the right, and what a userspace tunnel on the left needs to reach it."""

    wire: Wire
    linux: DaemonEnd
    config: str

    def userspace(self, *argv: str) -> Process:
        """Start one end of a transfer over wgpy's own TCP."""
        command = (sys.executable, "-m", "tests.e2e.bulk", self.config, *argv)
        return self.wire.left.spawn(*WITHOUT_PRIVILEGE, *command, env=ENVIRONMENT)

    def system(self, *argv: str) -> Process:
        """Start one end of a transfer over Linux."""
        return self.wire.right.spawn(sys.executable, "-m", "tests.e2e.bulk", "system", *argv, env=ENVIRONMENT)

    def transfer(self, *, ours: int, theirs: int, version: int = 4, we_dial: bool = True) -> dict[str, object]:
        """Move so many octets each way at once, compare digests, and return what our end saw."""
        here, there = (LEFT.inner4, RIGHT.inner4) if version == 4 else (LEFT.inner6, RIGHT.inner6)
        port = "5001"
        if we_dial:
            server = self.system("listen", there, port, str(theirs))
            eventually("the server listens", lambda: "listening" in server.output)
            client = self.userspace("dial", there, port, str(ours))
            our_end, their_end = client, server
        else:
            server = self.userspace("listen", here, port, str(ours))
            eventually("the server listens", lambda: "listening" in server.output)
            client = self.system("dial", here, port, str(theirs))
            our_end, their_end = server, client
        reports = []
        for end in (our_end, their_end):
            assert end.wait(120) == 0, end.output
            reports.append(json.loads(end.output.splitlines()[-1]))
        mine, linux = reports
        assert (mine["octets"], linux["octets"]) == (theirs, ours)
        assert (mine["received"], linux["received"]) == (linux["sent"], mine["sent"])
        print(json.dumps(mine))
        return mine


def set_up(wire: Wire, other: str = "wgpy", *, mtu: int = 1420, weather: dict[str, float] | None = None) -> Bench:
    """Configure both sides; the userspace side is a file only."""
    linux = wire.start("right", other)
    keys = Keys.make(wire.lab)
    linux.configure()
    linux.add_peer(keys.public, *LEFT.inner)
    linux.up(f"{RIGHT.inner4}/24", f"{RIGHT.inner6}/64", mtu=mtu)
    endpoint = RIGHT.endpoint(4)
    if weather is not None:
        relay = wire.left.spawn(
            *(sys.executable, "-m", "tests.e2e.relay", "5555", RIGHT.outer4, "51820", json.dumps(weather)),
            env=ENVIRONMENT,
        )
        eventually("the relay relays", lambda: "relaying" in relay.output)
        endpoint = "127.0.0.1:5555"
    config = wire.lab.folder / f"{unique('tunnel-')}.conf"
    config.touch(0o600)
    config.write_text(
        f"[Interface]\nPrivateKey = {keys.private}\nAddress = {LEFT.inner4}/24, {LEFT.inner6}/64\nMTU = {mtu}\n"
        f"[Peer]\nPublicKey = {linux.keys.public}\nEndpoint = {endpoint}\nAllowedIPs = {', '.join(RIGHT.inner)}\n"
    )
    return Bench(wire, linux, str(config))


@pytest.mark.parametrize("other", PEERS)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("we_dial", [True, False], ids=["dial", "listen"])
def test_streams_arrive_whole_in_both_directions(wire: Wire, other: str, version: int, we_dial: bool) -> None:
    bench = set_up(wire, other)
    bench.transfer(ours=16 * MEGABYTE, theirs=0, version=version, we_dial=we_dial)
    bench.transfer(ours=0, theirs=16 * MEGABYTE, version=version, we_dial=we_dial)
    bench.transfer(ours=4 * MEGABYTE, theirs=4 * MEGABYTE, version=version, we_dial=we_dial)


@pytest.mark.parametrize("mtu", [1280, 8920])
def test_streams_arrive_whole_in_small_and_large_packets(wire: Wire, mtu: int) -> None:
    if mtu > 1420:
        wire.left.ip("link", "set", "to-right", "mtu", "9000")
        wire.right.ip("link", "set", "to-left", "mtu", "9000")
    bench = set_up(wire, mtu=mtu)
    for version in (4, 6):
        bench.transfer(ours=4 * MEGABYTE, theirs=4 * MEGABYTE, version=version)


@pytest.mark.parametrize(
    "weather",
    [
        pytest.param({"delay": 0.01}, id="far"),
        pytest.param({"delay": 0.01, "loss": 0.01}, id="loss"),
        pytest.param({"delay": 0.005, "late": 0.02, "jitter": 0.003}, id="disorder"),
        pytest.param({"delay": 0.005, "repeats": 0.01}, id="repetition"),
        pytest.param({"delay": 0.005, "loss": 0.05, "late": 0.1, "jitter": 0.01, "repeats": 0.02}, id="storm"),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_streams_arrive_whole_through_weather(wire: Wire, version: int, weather: dict[str, float]) -> None:
    bench = set_up(wire, weather=weather)
    size = MEGABYTE if "loss" in weather else 4 * MEGABYTE
    bench.transfer(ours=size, theirs=0, version=version)
    bench.transfer(ours=0, theirs=size, version=version)
    bench.transfer(ours=size // 2, theirs=size // 2, version=version, we_dial=False)


@pytest.mark.parametrize(
    "setting",
    [
        "net.ipv4.tcp_sack=0",
        "net.ipv4.tcp_timestamps=0",
        "net.ipv4.tcp_window_scaling=0",
        "net.ipv4.tcp_ecn=1",
        "net.ipv4.tcp_congestion_control=reno",
        "net.ipv4.tcp_rmem=4096 4096 4096",
        "net.ipv4.tcp_wmem=4096 4096 4096",
    ],
)
def test_streams_arrive_whole_whatever_linux_offers(wire: Wire, setting: str) -> None:
    bench = set_up(wire, weather={"delay": 0.002, "loss": 0.002})
    wire.right.sysctl(setting)
    bench.transfer(ours=MEGABYTE, theirs=MEGABYTE)
    bench.transfer(ours=MEGABYTE, theirs=MEGABYTE, we_dial=False)


@contextlib.contextmanager
def echo_server(bench: Bench, host: str) -> Iterator[None]:
    """A UDP socket of Linux that echoes on port 7."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with bench.wire.right.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 7))

        def echo() -> None:
            while True:
                payload, address = server.recvfrom(65535)
                if payload == b"end":
                    return
                server.sendto(payload, address)

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            yield
        finally:
            with bench.wire.right.socket(family, socket.SOCK_DGRAM) as closer:
                closer.sendto(b"end", (host, 7))
            thread.join()


def knock(client: socket.socket, host: str) -> None:
    """Ask at a closed port."""
    client.settimeout(10)
    client.connect((host, 9))
    client.send(b"anybody?")
    client.recv(1)


@pytest.mark.parametrize("other", PEERS)
def test_echo_datagrams_and_errors_both_ways(wire: Wire, other: str) -> None:
    bench = set_up(wire, other)
    links = wire.left.run("ip", "-o", "link")
    sizes = [0, 56, 1372, 1373, 20_000, 65_000]
    with echo_server(bench, RIGHT.inner4), echo_server(bench, RIGHT.inner6):
        command = (sys.executable, "-m", "tests.e2e.host", bench.config, RIGHT.inner4, RIGHT.inner6)
        host = wire.left.spawn(*WITHOUT_PRIVILEGE, *command, env=ENVIRONMENT)
        eventually("the userspace host has tried everything", lambda: host.output.endswith("}\n"))
        report = json.loads(host.output.splitlines()[-1])
    for peer in (RIGHT.inner4, RIGHT.inner6):
        assert report[f"ping {peer}"] == report[f"udp {peer}"] == sizes
        assert report[f"closed udp {peer}"] == report[f"closed tcp {peer}"] == "ConnectionRefusedError"
    # And the other way round.
    for here, family in ((LEFT.inner4, socket.AF_INET), (LEFT.inner6, socket.AF_INET6)):
        for size in (56, 1372, 20_000):
            assert bench.linux.ping(here, size=size)
        with wire.right.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect((here, 7))
            for size in sizes:
                client.send(bytes(size))
                assert len(client.recv(65535)) == size
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with wire.right.socket(family, kind) as client, pytest.raises(ConnectionRefusedError):
                knock(client, here)
    # All of it without a capability, without an interface, and without a raw socket.
    assert int(report["capabilities"], 16) == 0
    assert wire.left.run("ip", "-o", "link") == links
    for table in ("raw", "raw6", "packet"):
        assert len(wire.left.run("cat", f"/proc/net/{table}").splitlines()) <= 1


def test_a_flood_of_pings_is_answered(wire: Wire) -> None:
    bench = set_up(wire)
    with echo_server(bench, RIGHT.inner4):
        host = wire.left.spawn(sys.executable, "-m", "tests.e2e.host", bench.config, RIGHT.inner4, env=ENVIRONMENT)
        eventually("the userspace host is up", lambda: host.output.endswith("}\n"))
    out = bench.linux.run("ping", "-n", "-f", "-c", "2000", LEFT.inner4)
    assert " 2000 received" in out

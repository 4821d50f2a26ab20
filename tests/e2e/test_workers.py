"""Several worker processes behind one interface and one UDP port, seen from outside.

hub (three workers) ─── to-right ═══ to-left ─── right: four daemons, one peer of the hub each
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Wire
from tests.e2e.daemons import LEFT, RIGHT, DaemonEnd
from tests.e2e.lab import eventually

WORKERS = 3
CLIENTS = 4


def address(number: int) -> str:
    return f"10.77.1.{number + 1}"


@pytest.fixture
def hub(wire: Wire) -> DaemonEnd:
    made = wire.start("left", env={"WGPY_WORKERS": str(WORKERS)})
    made.configure()
    return made


@pytest.fixture
def clients(wire: Wire, hub: DaemonEnd) -> list[DaemonEnd]:
    """Four daemons in namespaces of their own, as their addresses are on one net."""
    made = []
    for number in range(CLIENTS):
        client = wire.start("right")
        client.move_to(wire.lab.namespace(f"in{number}"))
        client.set("listen-port", str(52000 + number), "private-key", client.secret_file(client.keys.private))
        client.add_peer(hub.keys.public, f"{LEFT.inner4}/32", endpoint=LEFT.endpoint(4))
        hub.add_peer(client.keys.public, f"{address(number)}/32")
        client.up(f"{address(number)}/16")
        made.append(client)
    hub.up(f"{LEFT.inner4}/16")
    return made


def children(process: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listed.split()]


def workers_of(hub: DaemonEnd) -> list[int]:
    """The processes below the one that `ip netns exec` became."""
    return children(hub.process.pid)


def test_every_peer_is_reached_both_ways_and_shown_as_one_device(hub: DaemonEnd, clients: list[DaemonEnd]) -> None:
    for client in clients:
        assert client.ping(LEFT.inner4, count=3)
    for number, client in enumerate(clients):
        # A flow that the kernel has not seen yet may come to any worker.
        assert hub.ping(address(number), count=20)
        assert hub.latest_handshake(client)
        received, sent = hub.transfer(client)
        assert received
        assert sent
        assert hub.endpoint_of(client) == f"{RIGHT.outer4}:{52000 + number}"
    assert set(hub.by_peer("endpoints")) == {client.keys.public for client in clients}
    assert hub.show("public-key").strip() == hub.keys.public


def test_the_hub_initiates_and_streams_arrive_whole(hub: DaemonEnd, clients: list[DaemonEnd]) -> None:
    for number, client in enumerate(clients):
        endpoint = f"{RIGHT.outer4}:{52000 + number}"
        hub.set("peer", client.keys.public, "endpoint", endpoint)
        assert hub.ping(address(number), count=3)
    listening = clients[0].inside.spawn("iperf3", "-s", "-1", "--forceflush")
    eventually("iperf3 listens", lambda: "listening" in listening.output)
    report = hub.run("iperf3", "-c", address(0), "-t", "1", "-P", "4")
    assert "iperf Done" in report


def test_port_key_and_peers_change_while_sessions_go_on(hub: DaemonEnd, clients: list[DaemonEnd]) -> None:
    for client in clients:
        assert client.ping(LEFT.inner4)
    hub.set("listen-port", "4711")
    for number in range(CLIENTS):
        assert hub.ping(address(number))
    assert hub.show("listen-port").strip() == "4711"
    hub.set("peer", clients[0].keys.public, "remove")
    assert clients[0].keys.public not in hub.by_peer("endpoints")
    assert not clients[0].ping(LEFT.inner4, limit=1)
    assert clients[1].ping(LEFT.inner4)
    # The prefix moves to a peer that, most likely, another worker holds.
    hub.set("peer", clients[1].keys.public, "allowed-ips", f"{address(1)}/32,{address(0)}/32")
    assert hub.by_peer("allowed-ips")[clients[1].keys.public] == [f"{address(1)}/32", f"{address(0)}/32"]


def test_a_port_in_use_is_refused_and_the_old_one_stays(wire: Wire, hub: DaemonEnd, clients: list[DaemonEnd]) -> None:
    other = wire.start("left")
    other.configure(port=4712)
    assert "in use" in hub.set("listen-port", "4712", check=False)
    assert hub.show("listen-port").strip() == "51820"
    assert clients[0].ping(LEFT.inner4)


def test_it_ends_as_one(hub: DaemonEnd) -> None:
    workers = workers_of(hub)
    assert len(workers) == WORKERS
    hub.process.signal(signal.SIGTERM)
    assert hub.process.wait() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not hub.socket.exists()


def test_a_deleted_interface_ends_it(hub: DaemonEnd) -> None:
    workers = workers_of(hub)
    hub.inside.ip("link", "del", hub.interface)
    assert hub.process.wait() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_worker_that_dies_takes_the_others_along_and_is_reported(hub: DaemonEnd) -> None:
    workers = workers_of(hub)
    os.kill(workers[1], signal.SIGKILL)
    assert hub.process.wait() == 1
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not hub.socket.exists()

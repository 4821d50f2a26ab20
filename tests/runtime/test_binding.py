"""Which socket of a port the kernel gives a datagram to; in both families, for one worker and for several."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from wgpy.errors import DeviceError
from wgpy.runtime import binding
from wgpy.runtime.binding import Member, bind_members

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
KINDS = {1: 148, 2: 92, 3: 64, 4: 96}


def message(kind: int, index: int = 0, receiver: int = 0) -> bytes:
    head = bytes([kind, 0, 0, 0]) + index.to_bytes(4, "little") + receiver.to_bytes(4, "little")
    return head + bytes(KINDS[kind] - len(head))


class Port:
    """The sockets of some workers behind one port, and what reaches them."""

    def __init__(self, workers: int) -> None:
        self.members = bind_members(0, workers, fwmark=0, interface=None)
        first = self.members[0].v4
        assert first is not None
        self.number = first.getsockname()[1]

    def send(self, family: socket.AddressFamily, octets: bytes, source: str = "") -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((source or LOOPBACK[family], 0))
            one.sendto(octets, (LOOPBACK[family], self.number))

    def taken(self) -> list[tuple[int, str, int]]:
        """Worker, name of the socket, and type of every message that waits."""
        found = []
        for worker, member in enumerate(self.members):
            for name, one in zip(Member._fields, member, strict=True):
                assert one is not None
                while True:
                    try:
                        octets = one.recv(2048)
                    except BlockingIOError:
                        break
                    found.append((worker, name, octets[0] if octets else 0))
        return sorted(found)

    def close(self) -> None:
        for member in self.members:
            member.close()


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    made = Port(getattr(request, "param", 1))
    yield made
    made.close()


@FAMILIES
def test_transport_data_has_a_socket_of_its_own(port: Port, family: socket.AddressFamily) -> None:
    for kind in KINDS:
        port.send(family, message(kind))
    six = family == socket.AF_INET6
    data, door = ("v6", "door6") if six else ("v4", "door4")
    assert port.taken() == sorted([(0, door, 1), (0, door, 2), (0, door, 3), (0, data, 4)])


@FAMILIES
def test_a_flood_that_nobody_reads_pushes_out_no_data(port: Port, family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as flooder:
        for _ in range(20_000):
            flooder.sendto(message(1), (LOOPBACK[family], port.number))
    for _ in range(50):
        port.send(family, message(4))
    kinds = [kind for _, _, kind in port.taken()]
    assert kinds.count(4) == 50
    assert kinds.count(1) < 20_000, "the kernel drops what is too much"


@FAMILIES
@pytest.mark.parametrize("port", [3], indirect=True)
def test_what_carries_an_index_reaches_the_worker_of_that_index(port: Port, family: socket.AddressFamily) -> None:
    for worker in range(3):
        port.send(family, message(4, index=worker + 3))
        port.send(family, message(3, index=worker + 3))
        port.send(family, message(2, index=99, receiver=worker + 3))
    suffix = "6" if family == socket.AF_INET6 else "4"
    expected = [(worker, f"door{suffix}", kind) for worker in range(3) for kind in (2, 3)]
    assert port.taken() == sorted([*expected, *((worker, f"v{suffix}", 4) for worker in range(3))])


@pytest.mark.parametrize("port", [2], indirect=True)
def test_initiations_of_one_source_all_reach_the_same_worker_and_many_sources_all_of_them(port: Port) -> None:
    """Cookies are made by one worker, and shown to the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for index in range(30):
            one.sendto(message(1, index=index), ("127.0.0.1", port.number))
    assert len({worker for worker, _, _ in port.taken()}) == 1
    for number in range(60):
        port.send(socket.AF_INET, message(1), source=f"127.0.1.{number + 1}")
    assert {(worker, name) for worker, name, _ in port.taken()} == {(0, "door4"), (1, "door4")}


@FAMILIES
def test_what_is_too_short_to_be_told_is_taken_all_the_same(port: Port, family: socket.AddressFamily) -> None:
    for length in (0, 1, 3):
        port.send(family, bytes(length))
    assert len(port.taken()) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_joins_a_port_that_is_taken(workers: int) -> None:
    port = Port(workers)
    try:
        with pytest.raises(DeviceError) as raised:
            bind_members(port.number, workers, fwmark=0, interface=None)
        assert raised.value.errno == errno.EADDRINUSE
    finally:
        port.close()


def test_where_the_kernel_does_not_steer_one_socket_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(one: socket.socket, program: bytes) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(binding, "_attach", refuse)
    (member,) = bind_members(0, 1, fwmark=0, interface=None)
    try:
        assert (member.door4, member.door6) == (None, None)
        assert member.v4 is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for kind in KINDS:
                one.sendto(message(kind), ("127.0.0.1", member.v4.getsockname()[1]))
        assert [member.v4.recv(2048)[0] for _ in KINDS] == list(KINDS)
    finally:
        member.close()
    with pytest.raises(DeviceError):
        bind_members(0, 2, fwmark=0, interface=None)

"""Datagram sockets of two stacks; N34."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.netstack.hosts import ROWS, Host, Wire
from wgpy.constants import TRANSPORT_OVERHEAD
from wgpy.dataplane.selected import Rows
from wgpy.dataplane.slab import Arena, Slab
from wgpy.errors import DropReason
from wgpy.netstack.constants import UDP_DATAGRAM_OVERHEAD, UDP_RECEIVE_QUEUE
from wgpy.netstack.udp import UdpTable
from wgpy.wire import icmp, ip, udp
from wgpy.wire.checksum import checksum

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")
V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")


def datagram(source: bytes, target: bytes, source_port: int, port: int, payload: bytes = b"hello") -> bytes:
    body = udp.encode(source, target, source_port, port, payload)
    return ip.encode_header(source, target, ip.UDP, len(body)) + body


@pytest.mark.parametrize(("here", "there"), [V4, V6])
@pytest.mark.parametrize("size", [0, 1, 1352, 1372, 1373, 1392, 1393, 9000, 65507])
def test_datagrams_of_every_size_go_there_and_back(here: str, there: str, size: int) -> None:
    wire = Wire()
    server = wire.b.udp.open(local=(None, 7))
    client = wire.a.udp.open(remote=(there, 7))
    payload = bytes(index % 251 for index in range(size))
    assert client.send(payload, 0.0)
    wire.run()
    assert wire.b.ready == [server]
    received = server.receive()
    assert received == (payload, (here, client.local[1]))
    assert server.receive() is None
    assert server.send(payload[::-1], 0.0, remote=received[1])
    wire.run()
    assert client.receive() == (payload[::-1], (there, 7))
    assert all(len(packet) <= 1420 for packet in wire.a.sent + wire.b.sent)


def test_the_greatest_datagram_over_ipv6() -> None:
    wire = Wire()
    server, client = wire.b.udp.open(local=(None, 7)), wire.a.udp.open(remote=("fd00::2", 7))
    assert client.send(bytes(65527), 0.0)
    wire.run()
    received = server.receive()
    assert received is not None
    assert received[0] == bytes(65527)


@pytest.mark.parametrize(("there", "size"), [("10.0.0.2", 65508), ("fd00::2", 65528)])
def test_a_datagram_that_no_packet_could_hold_is_refused(there: str, size: int) -> None:
    client = Host("a").udp.open(remote=(there, 7))
    with pytest.raises(OSError, match="65") as refused:
        client.send(bytes(size), 0.0)
    assert refused.value.errno == errno.EMSGSIZE


# --- who gets what ---------------------------------------------------------------------------------------------------


def test_a_connected_socket_hears_one_host_and_one_port_only() -> None:
    host = Host("a")
    client = host.udp.open(local=("10.0.0.1", 1000), remote=("10.0.0.2", 7))
    host.receive(datagram(B, A, 8, 1000), datagram(ip.from_text("10.0.0.3"), A, 7, 1000))
    assert client.receive() is None
    assert host.drops == {DropReason.NO_SOCKET: 2}
    host.receive(datagram(B, A, 7, 1000))
    assert client.receive() == (b"hello", ("10.0.0.2", 7))


def test_a_port_is_one_s_own_on_its_addresses() -> None:
    table = Host("a").udp
    table.open(local=("10.0.0.1", 53))
    table.open(local=("fd00::1", 53))
    for taken in ("10.0.0.1", "fd00::1", None):
        with pytest.raises(OSError, match="port 53") as refused:
            table.open(local=(taken, 53))
        assert refused.value.errno == errno.EADDRINUSE
    table.open(local=(None, 54))
    with pytest.raises(OSError, match="port 54"):
        table.open(local=("10.0.0.1", 54))


def test_a_closed_socket_gives_its_port_back() -> None:
    table = Host("a").udp
    socket = table.open(local=(None, 53))
    socket.close()
    socket.close()
    assert len(table) == 0
    table.open(local=("10.0.0.1", 53))
    with pytest.raises(OSError, match="closed") as refused:
        socket.send(b"", 0.0, remote=("10.0.0.2", 7))
    assert refused.value.errno == errno.EBADF


def test_ports_are_chosen_at_random() -> None:
    table = Host("a").udp
    ports = [table.open().local[1] for _ in range(200)]
    assert len(set(ports)) == 200
    steps = [after - before for before, after in itertools.pairwise(ports)]
    assert len(set(steps)) > 190


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ({"local": ("10.0.0.77", 0)}, errno.EADDRNOTAVAIL),
        ({"local": ("10.0.0.1", 0), "remote": ("fd00::2", 7)}, errno.EAFNOSUPPORT),
        ({"remote": ("name.example", 7)}, errno.EINVAL),
        ({"remote": ("10.0.0.2", 65536)}, errno.EINVAL),
    ],
)
def test_what_cannot_be_opened_says_why(arguments: dict[str, tuple[str, int]], number: int) -> None:
    host = Host("a")
    with pytest.raises(OSError) as refused:  # noqa: PT011 # the number is the point
        host.udp.open(**arguments)
    assert refused.value.errno == number
    assert len(host.udp) == 0


def test_a_destination_is_needed_once() -> None:
    table = Host("a").udp
    with pytest.raises(OSError, match="not connected") as refused:
        table.open().send(b"", 0.0)
    assert refused.value.errno == errno.EDESTADDRREQ
    with pytest.raises(OSError, match="only") as refused:
        table.open(remote=("10.0.0.2", 7)).send(b"", 0.0, remote=("10.0.0.3", 7))
    assert refused.value.errno == errno.EISCONN


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_receive_queue_drops_the_newest(size: int) -> None:
    wire = Wire()
    server = wire.b.udp.open(local=(None, 7))
    fits = UDP_RECEIVE_QUEUE // (size + UDP_DATAGRAM_OVERHEAD)
    for number in range(fits + 3):
        wire.b.receive(datagram(A, B, number % 60000 + 1, 7, bytes(size)))
    assert server.dropped == wire.b.drops[DropReason.RECEIVE_QUEUE_FULL] == 3
    assert server.receive() == (bytes(size), ("10.0.0.1", 1))
    wire.b.receive(datagram(A, B, 1, 7, bytes(size)))
    assert server.dropped == 3


def test_a_full_send_queue_says_so_and_says_when_there_is_room() -> None:
    host = Host("a")
    client = host.udp.open(remote=("10.0.0.2", 7))
    sent = 0
    while client.send(bytes(1000), 0.0):
        sent += 1
    assert sent > 100
    host.emit(budget=10_000)
    assert len(host.sent) == sent
    assert host.ready == [client]
    assert client.is_writable


def test_all_fragments_of_a_datagram_are_taken_or_none() -> None:
    host = Host("a")
    client = host.udp.open(remote=("10.0.0.2", 7))
    while client.send(bytes(60_000), 0.0):
        pass
    assert client.send(b"small", 0.0), "there is room, but not for that much"
    host.emit(budget=10_000)
    assert len(host.sent) == 4 * 43 + 1
    assert host.ready == [client]


# --- slabs -----------------------------------------------------------------------------------------------------------


def slab_of(packets: list[bytes]) -> Slab:
    """Packets of one length as the rows of one slab."""
    stride = len(packets[0]) + TRANSPORT_OVERHEAD
    return Slab(
        Arena(bytearray().join(bytes(16) + packet + bytes(16) for packet in packets)),
        0,
        stride,
        len(packets),
        len(packets[0]),
        len(packets[-1]),
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("source", "target"), [(A, B), (A6, B6)])
def test_a_slab_of_one_flow_is_taken_at_once(source: bytes, target: bytes, rows: Rows) -> None:
    host = Host("b")
    table = UdpTable(host.stack, host.icmp.paths, random=bytes, rows=rows)
    server = table.open(local=(None, 7))
    host.stack.register_protocol(ip.UDP, lambda *_: pytest.fail("row by row"))
    payloads = [number.to_bytes(2) * 50 for number in range(40)]
    slab = slab_of([datagram(source, target, 9, 7, payload) for payload in payloads])
    assert host.stack.receive([slab], 0.0) == [server]
    assert [server.receive() for _ in payloads] == [(payload, (ip.to_text(source), 9)) for payload in payloads]
    assert not host.drops


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("what", ["port", "damage", "stranger", "shorter", "length", "fragment", "no checksum"])
def test_a_slab_that_is_not_one_whole_flow_goes_row_by_row(what: str, rows: Rows) -> None:
    host = Host("b")
    server = UdpTable(host.stack, host.icmp.paths, random=bytes, rows=rows).open(local=(None, 7))
    packets = [bytearray(datagram(A, B, 9, 7)) for _ in range(3)]
    expected = 2
    match what:
        case "port":
            packets[1] = bytearray(datagram(A, B, 9, 8))
        case "damage":
            packets[1][-1] ^= 1
        case "stranger":
            packets[1] = bytearray(datagram(A, ip.from_text("10.0.0.9"), 9, 7))
        case "shorter":
            packets[2] = bytearray(datagram(A, B, 9, 7, b"hell"))
            expected = 3
        case "length":
            packets[1] = bytearray(datagram(A, B, 9, 7, b"hell") + b"!")
            packets[1][2:4] = len(packets[1]).to_bytes(2)
            packets[1][10:12] = bytes(2)
            packets[1][10:12] = checksum(packets[1][:20]).to_bytes(2)
            expected = 3
        case "fragment":
            part = ip.Fragment(1, 0, False)
            packets = [bytearray(ip.encode_header(A, B, ip.UDP, 16, fragment=part)) + bytes(16) for _ in range(3)]
            expected = 0
        case "no checksum":
            for packet in packets:
                packet[26:28] = bytes(2)
            expected = 3
    host.stack.receive([slab_of([bytes(packet) for packet in packets])], 0.0)
    received = 0
    while server.receive() is not None:
        received += 1
    assert received == expected


# --- ICMP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "there"), [V4, V6])
def test_nobody_there_is_told_to_a_connected_socket(here: str, there: str) -> None:
    wire = Wire()
    client = wire.a.udp.open(remote=(there, 9))
    client.send(b"anybody?", 0.0)
    wire.run()
    assert client.is_readable
    with pytest.raises(ConnectionRefusedError):
        client.receive()
    assert client.receive() is None, "told once"
    client.send(b"anybody?", 0.0)
    wire.run()
    with pytest.raises(ConnectionRefusedError):
        client.send(b"anybody?", 0.0)


def test_an_unconnected_socket_is_not_bothered() -> None:
    wire = Wire()
    client = wire.a.udp.open()
    client.send(b"anybody?", 0.0, remote=("10.0.0.2", 9))
    wire.run()
    assert client.receive() is None


@pytest.mark.parametrize(
    ("remote", "local_port", "quoted_port"), [("10.0.0.2", 1000, 8), ("10.0.0.2", 1001, 9), ("10.0.0.3", 1000, 9)]
)
def test_an_error_about_somebody_else_changes_nothing(remote: str, local_port: int, quoted_port: int) -> None:
    host = Host("a")
    client = host.udp.open(local=("10.0.0.1", 1000), remote=("10.0.0.2", 9))
    quoted = datagram(A, ip.from_text(remote), local_port, quoted_port)
    error = icmp.error(quoted, 3, 3)
    assert error is not None
    host.receive(error)
    assert client.receive() is None
    assert host.drops == {DropReason.ICMP_UNRELATED: 1}


@pytest.mark.parametrize(("source", "target", "mtu"), [(A, B, 700), (A6, B6, 1300)])
def test_a_smaller_path_makes_fragments_for_ten_minutes(source: bytes, target: bytes, mtu: int) -> None:
    host = Host("a")
    client = host.udp.open(remote=(ip.to_text(target), 7))
    client.send(bytes(1350), 0.0)
    [packet] = host.emit()
    told = icmp.error(packet, 3, 4, mtu) if len(source) == 4 else icmp.error(packet, 2, 0, mtu)
    assert told is not None
    host.receive(told)
    client.send(bytes(1350), 1.0)
    packets = host.emit()
    assert len(packets) == 2
    assert max(map(len, packets)) <= mtu
    client.send(bytes(1350), 700.0)
    assert len(host.emit(700.0)) == 1


@pytest.mark.parametrize("mtu", [68, 551, 1420, 9000])
def test_an_incredible_path_mtu_is_not_believed(mtu: int) -> None:
    host = Host("a")
    client = host.udp.open(remote=("10.0.0.2", 7))
    client.send(bytes(1392), 0.0)
    [packet] = host.emit()
    told = icmp.error(packet, 3, 4, mtu)
    assert told is not None
    host.receive(told)
    client.send(bytes(1392), 1.0)
    assert len(host.emit()) == 1


@given(st.binary(max_size=60), st.sampled_from([(A, B), (A6, B6)]))
def test_hostile_datagrams_raise_nothing(body: bytes, ends: tuple[bytes, bytes]) -> None:
    host = Host("b")
    server = host.udp.open(local=(None, 7))
    host.receive(ip.encode_header(*ends, ip.UDP, len(body)) + body)
    assert sum(host.drops.values()) + (server.receive() is not None) == 1

"""The UDP sockets: what leaves in one system call, and what happens where the kernel or the path refuses.

Protocol notes 1.10, 4.4 and 4.5; T16, T17, B30, B49, B54, R3, R8. The kernel's refusals come from a socket of our own
making; that real ones are answered rightly is shown in tests/e2e.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
import trio

from wgpy.config import Endpoint
from wgpy.errors import DeviceError, DropReason
from wgpy.protocol.datagrams import DatagramBatch
from wgpy.runtime import binding, udp
from wgpy.runtime.udp import Local, UdpSockets

THERE, ELSEWHERE = Endpoint("127.0.0.1", 9), Endpoint("127.0.0.2", 9)
SIX = Endpoint("::1", 9)
SOURCE = Local(4, struct.pack("=I4s4s", 1, bytes([127, 0, 0, 1]), bytes(4)))
UDP_SEGMENT, UDP_GRO = 103, 104
# How transport data begins.
DATA = b"\4\0\0\0"


class Kernel:
    """Stands in for the system's end of a socket: takes what is sent, or refuses it by the rules of the test."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.sent: list[bytes] = []
        self.calls: list[tuple[int, bool, bool]] = []
        self.refuse = lambda segment, has_source, datagrams: 0

    def sendmsg(
        self, buffers: Sequence[memoryview], ancillary: Sequence[tuple[int, int, bytes]], flags: int, address: object
    ) -> int:
        octets = b"".join(buffers)
        segment = next((struct.unpack("=H", data)[0] for _, kind, data in ancillary if kind == UDP_SEGMENT), 0)
        has_source = any(kind in (8, socket.IPV6_PKTINFO) for _, kind, _ in ancillary)
        datagrams = [octets[at : at + segment] for at in range(0, len(octets), segment)] if segment else [octets]
        self.calls.append((len(datagrams), has_source, bool(segment)))
        number = self.refuse(segment, has_source, datagrams)
        if number in (errno.EAGAIN,):
            raise BlockingIOError(number, "no room")
        if number:
            raise OSError(number, os.strerror(number))
        self.sent += datagrams
        return len(octets)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.fixture
def sockets() -> Iterator[UdpSockets]:
    made = UdpSockets()
    assert made.v4 is not None
    made.v4.groups = True
    made.v4.socket = Kernel(made.v4.socket)  # type: ignore[assignment]
    yield made
    made.close()


@pytest.fixture
def kernel(sockets: UdpSockets) -> Kernel:
    assert sockets.v4 is not None
    return sockets.v4.socket  # type: ignore[return-value]


def batch(
    count: int,
    *,
    size: int = 100,
    last: int | None = None,
    remote: Endpoint = THERE,
    local: object = None,
    tos: int = 0,
) -> DatagramBatch:
    sizes = [*[size] * (count - 1), last or size]
    octets = b"".join(DATA + bytes([n]) * (size - len(DATA)) for n, size in enumerate(sizes, 1))
    return DatagramBatch(bytearray(octets), size, remote, local=local, tos=tos)


def datagrams(*batches: DatagramBatch) -> list[bytes]:
    return [bytes(one) for each in batches for one in each]


def test_neighbours_of_one_kind_leave_in_one_system_call(sockets: UdpSockets, kernel: Kernel) -> None:
    batches = [batch(3), batch(2), batch(2, last=50), batch(1)]
    assert sockets.send(batches) == (4, None)
    assert kernel.sent == datagrams(*batches)
    assert [count for count, _, _ in kernel.calls] == [7, 1], "nothing follows a shorter one"


@pytest.mark.parametrize("other", [{"remote": ELSEWHERE}, {"tos": 1}, {"local": SOURCE}, {"size": 90}, {"size": 110}])
def test_what_differs_does_not_share_a_call(sockets: UdpSockets, kernel: Kernel, other: dict[str, object]) -> None:
    batches = [batch(2), batch(2, **other), batch(2)]  # type: ignore[arg-type]
    sockets.send(batches)
    assert kernel.sent == datagrams(*batches)
    assert [count for count, _, _ in kernel.calls] == [2, 2, 2]


@pytest.mark.parametrize(
    ("batches", "calls"),
    [
        ([batch(60), batch(4), batch(1)], [64, 1]),
        ([batch(60), batch(5)], [60, 5]),
        ([batch(40, size=1452), batch(5, size=1452), batch(1, size=1452)], [45, 1]),
        ([batch(40, size=1452), batch(6, size=1452)], [40, 6]),
        ([batch(46, size=1452)], [1] * 46),
        ([batch(70)], [1] * 70),
    ],
)
def test_at_most_64_datagrams_and_65507_octets_leave_together(
    sockets: UdpSockets, kernel: Kernel, batches: list[DatagramBatch], calls: list[int]
) -> None:
    """Protocol notes 4.4; what nobody should have grouped so leaves singly."""
    sockets.send(batches)
    assert kernel.sent == datagrams(*batches)
    assert [count for count, _, _ in kernel.calls] == calls


def test_eio_means_no_grouping_on_this_socket_and_nothing_is_lost(sockets: UdpSockets, kernel: Kernel) -> None:
    """The outgoing device computes no checksums."""
    kernel.refuse = lambda segment, has_source, parts: errno.EIO if segment else 0
    batches = [batch(3), batch(2)]
    assert sockets.send(batches) == (2, None)
    assert kernel.sent == datagrams(*batches)
    assert sockets.v4 is not None
    assert not sockets.v4.groups
    kernel.calls.clear()
    sockets.send([batch(3)])
    assert [count for count, _, _ in kernel.calls] == [1, 1, 1]
    assert not sockets.failures


def test_emsgsize_means_no_grouping_of_this_size_to_this_endpoint(sockets: UdpSockets, kernel: Kernel) -> None:
    """A path of small MTU; other endpoints and smaller sizes are still grouped, until routes change (B54, R10)."""
    kernel.refuse = lambda segment, has_source, parts: errno.EMSGSIZE if segment > 90 else 0
    large = [batch(3), batch(3)]
    sockets.send(large)
    assert kernel.sent == datagrams(*large)
    kernel.calls.clear()
    sockets.send([batch(3, size=90)])
    sockets.send([batch(3, size=90, remote=ELSEWHERE)])
    assert [count for count, _, _ in kernel.calls] == [3, 3]
    kernel.calls.clear()
    sockets.send([batch(2)])
    assert kernel.calls == [(1, False, False)] * 2, "not tried again"
    sockets.forget_paths()
    kernel.refuse = lambda segment, has_source, parts: 0
    kernel.calls.clear()
    sockets.send([batch(2)])
    assert kernel.calls == [(2, False, True)]
    assert not sockets.failures


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_other_refusals_of_grouping_lose_nothing(sockets: UdpSockets, kernel: Kernel, number: int) -> None:
    kernel.refuse = lambda segment, has_source, parts: number if segment else 0
    sockets.send([batch(3)])
    assert kernel.sent == datagrams(batch(3))
    assert not sockets.failures


@pytest.mark.parametrize(
    "number",
    [errno.ENETUNREACH, errno.EINVAL, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETDOWN],
)
def test_b30_where_the_source_is_gone_the_same_datagrams_leave_at_once_without_it(
    sockets: UdpSockets, kernel: Kernel, number: int
) -> None:
    """B49, R3: once more, and the engine is told to forget the source."""
    kernel.refuse = lambda segment, has_source, parts: number if has_source else 0
    one = batch(3, local=SOURCE)
    assert sockets.send([one]) == (1, None)
    assert kernel.sent == datagrams(one)
    assert kernel.calls == [(3, True, True), (3, False, True)]
    assert sockets.stale == [one]
    assert not sockets.failures


def test_t17_an_icmp_error_that_waits_on_the_socket_costs_nothing(sockets: UdpSockets, kernel: Kernel) -> None:
    answers = iter([errno.ECONNREFUSED, 0])
    kernel.refuse = lambda segment, has_source, parts: next(answers)
    sockets.send([batch(2)])
    assert kernel.sent == datagrams(batch(2))
    assert not sockets.failures


def test_a_datagram_that_is_refused_is_a_failure_of_its_batch(sockets: UdpSockets, kernel: Kernel) -> None:
    kernel.refuse = lambda segment, has_source, parts: errno.EPERM
    batches = [batch(2), batch(1)]
    assert sockets.send(batches) == (2, None)
    assert [(failure.batch, failure.reason) for failure in sockets.failures] == [
        (batches[0], DropReason.SEND_FAILED),
        (batches[1], DropReason.SEND_FAILED),
    ]


def test_a_family_without_socket_is_a_failure(sockets: UdpSockets) -> None:
    """Protocol notes 1.10."""
    if sockets.v6 is not None:
        sockets.v6.close()
        sockets.v6 = None
    one = batch(1, remote=SIX)
    assert sockets.send([one]) == (1, None)
    assert [(failure.batch, failure.reason) for failure in sockets.failures] == [(one, DropReason.NO_SOCKET_FOR_FAMILY)]


def test_where_there_is_no_room_the_rest_waits(sockets: UdpSockets, kernel: Kernel) -> None:
    room = iter([0, errno.EAGAIN])
    kernel.refuse = lambda segment, has_source, parts: next(room)
    batches = [batch(2), batch(2, remote=ELSEWHERE), batch(1)]
    position, full = sockets.send(batches)
    assert (position, full) == (1, sockets.v4)
    kernel.refuse = lambda segment, has_source, parts: 0
    assert sockets.send(batches, position) == (3, None)
    assert kernel.sent == datagrams(*batches)


def test_a_source_of_the_other_family_is_not_used(sockets: UdpSockets, kernel: Kernel) -> None:
    sockets.send([batch(1, local=Local(6, bytes(20))), batch(1, local="not ours")])
    assert [has_source for _, has_source, _ in kernel.calls] == [False, False]


def test_a_local_address_is_read_from_what_the_kernel_told() -> None:
    assert (SOURCE.interface, SOURCE.address) == (1, bytes([127, 0, 0, 1]))
    six = Local(6, bytes(15) + b"\1" + struct.pack("=i", 3))
    assert (six.interface, six.address) == (3, bytes(15) + b"\1")


@pytest.mark.parametrize(
    ("release", "damages"),
    [
        ("6.12.1", False),
        ("7.0.0-rc1", True),
        ("7.1.4", True),
        ("7.1.5", False),
        ("7.0", True),
        ("8.0.1", False),
        ("x", False),
    ],
)
def test_kernels_that_damage_groups_are_known(release: str, damages: bool) -> None:
    """Protocol notes 4.5."""
    assert udp._damages_groups(release) is damages


# --- two real sockets on loopback ------------------------------------------------------------------------------------


async def exchange(sender: UdpSockets, receiver: UdpSockets, batches: list[DatagramBatch]) -> list[DatagramBatch]:
    """Send, and receive until everything has come; what is received is copied out of the buffers."""
    position, full = sender.send(batches)
    assert (position, full) == (len(batches), None)
    wanted, found = sum(one.count for one in batches), []
    with trio.fail_after(5):
        while sum(one.count for one in found) < wanted:
            one = receiver.v4
            assert one is not None
            await trio.lowlevel.wait_readable(one.socket)
            for got in one.receive():
                found.append(
                    DatagramBatch(bytearray(got.data), got.segment_size, got.remote, local=got.local, tos=got.tos)
                )
    return found


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("coalesces", [True, False])
async def test_with_and_without_offload_the_same_datagrams_arrive(groups: bool, coalesces: bool) -> None:
    """R8: WGPY_UDP_GSO=0 and WGPY_UDP_GRO=0."""
    sender, receiver = UdpSockets(groups=groups), UdpSockets(coalesces=coalesces)
    try:
        there = Endpoint("127.0.0.1", receiver.port)
        sent = [batch(20, size=1000, last=40, remote=there), batch(1, size=32, remote=there, tos=0x88)]
        found = await exchange(sender, receiver, sent)
        assert datagrams(*found) == datagrams(*sent)
        assert {one.remote.port for one in found} == {sender.port}
        assert found[-1].tos == 0x88
        if not coalesces:
            assert all(one.count == 1 for one in found)
        back = found[-1]
        answer = DatagramBatch(bytearray(DATA + b"answer"), 10, back.remote, local=back.local)
        (returned,) = await exchange(receiver, sender, [answer])
        assert returned.remote == there, "T16: from the address that was hit"
    finally:
        sender.close()
        receiver.close()


async def test_an_empty_and_a_large_datagram_arrive() -> None:
    """T20, B1."""
    sender, receiver = UdpSockets(), UdpSockets()
    try:
        there = Endpoint("127.0.0.1", receiver.port)
        sent = [DatagramBatch(bytearray(), 0, there), DatagramBatch(bytearray(DATA + bytes(65503)), 65507, there)]
        found = await exchange(sender, receiver, sent)
        assert [one.length for one in found] == [0, 65507]
    finally:
        sender.close()
        receiver.close()


def test_reading_an_empty_or_a_closed_socket_gives_nothing() -> None:
    sockets = UdpSockets()
    (one, *_) = list(sockets)
    assert one.receive() == []
    assert one.is_open
    sockets.close()
    sockets.close()
    assert not one.is_open
    assert one.receive() == []


def test_both_families_have_one_port_and_a_taken_one_is_named() -> None:
    first = UdpSockets()
    try:
        assert {one.port for one in first} == {first.port}
        with pytest.raises(DeviceError, match=f"UDP port {first.port} is taken") as raised:
            UdpSockets(first.port)
        assert raised.value.errno == errno.EADDRINUSE
    finally:
        first.close()


@pytest.mark.parametrize("missing", [4, 6])
def test_b37_a_missing_family_is_tolerated_and_two_are_not(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """R9."""
    gone = {missing}
    original = binding._configure

    def configure(one: socket.socket) -> None:
        if (4 if one.family == socket.AF_INET else 6) in gone:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        original(one)

    monkeypatch.setattr(binding, "_configure", configure)
    sockets = UdpSockets()
    assert {one.version for one in sockets} == {10 - missing}
    sockets.close()
    gone.update((4, 6))
    with pytest.raises(DeviceError, match="neither IPv4 nor IPv6"):
        UdpSockets()


def test_a_random_port_that_the_other_family_has_taken_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol notes 1.3: random port retries."""
    tries = []
    original = binding._bind

    def bind(version: int, port: int, *more: object, shares: bool) -> socket.socket | None:
        if version == 6 and len(tries) < 3:
            tries.append(port)
            raise OSError(errno.EADDRINUSE, "taken")
        return original(version, port, *more, shares=shares)

    monkeypatch.setattr(binding, "_bind", bind)
    sockets = UdpSockets()
    sockets.close()
    assert len(tries) == 3


def test_r16_sockets_are_bound_to_an_interface_and_move_with_it() -> None:
    sockets = UdpSockets(interface="lo")
    try:
        for one in sockets:
            bound = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            assert bound.rstrip(b"\0") == b"lo"
        assert sockets.interface == "lo"
    finally:
        sockets.close()


def test_r16_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="there is no interface 'wan77' to bind to"):
        UdpSockets(interface="wan77")


@pytest.mark.needs("root")
@pytest.mark.parametrize("mark", [1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_mark_of_32_bits_is_taken_at_the_start_and_later(mark: int) -> None:
    made = UdpSockets(fwmark=mark)
    try:
        found = [struct.unpack("=I", one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4))[0] for one in made]
        assert set(found) == {mark}
        made.set_fwmark(0)
        made.set_fwmark(mark)
        found = [struct.unpack("=I", one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4))[0] for one in made]
        assert set(found) == {mark}
    finally:
        made.close()


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (SOURCE, struct.pack("=I4s4s", 0, bytes([127, 0, 0, 1]), bytes(4))),
        (Local(6, b"\x20\x01" + bytes(13) + b"\1" + b"\7\0\0\0"), b"\x20\x01" + bytes(13) + b"\1" + bytes(4)),
        (Local(6, b"\xfe\x80" + bytes(13) + b"\1" + b"\7\0\0\0"), b"\xfe\x80" + bytes(13) + b"\1" + b"\7\0\0\0"),
        (Local(6, b"\xfe\xbf" + bytes(13) + b"\1" + b"\7\0\0\0"), b"\xfe\xbf" + bytes(13) + b"\1" + b"\7\0\0\0"),
        (Local(6, b"\xfe\xc0" + bytes(13) + b"\1" + b"\7\0\0\0"), b"\xfe\xc0" + bytes(13) + b"\1" + bytes(4)),
    ],
    ids=["IPv4", "IPv6", "link-local", "link-local, last", "no longer link-local"],
)
def test_an_answer_keeps_the_address_and_leaves_the_way_to_the_routes(local: Local, expected: bytes) -> None:
    """Only a link-local address means nothing without its interface."""
    assert local.as_source == expected


def test_when_interfaces_change_a_zone_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = UdpSockets()
    numbers = {"eth7": 7}
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: numbers[name])
    monkeypatch.setattr(socket, "if_indextoname", lambda number: f"eth{number}")
    try:
        one = made.v6
        assert one is not None
        there, elsewhere = Endpoint("fe80::2%eth7", 9), Endpoint("2001:db8::1", 9)
        assert one._address(there) == ("fe80::2", 9, 0, 7)
        kept = one._endpoint(("2001:db8::1", 9, 0, 0))
        assert one._endpoint(("fe80::2", 9, 0, 7)) == there
        numbers["eth7"] = 8
        made.forget_paths()
        assert one._address(there) == ("fe80::2", 9, 0, 8)
        assert one._endpoints["2001:db8::1", 9, 0, 0] is kept, "peers are told by the one object per address"
        assert kept == elsewhere
    finally:
        made.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("hop_limit", [0, 56])
def test_a_datagram_leaves_with_the_hop_limit_that_it_shall_have(host: str, hop_limit: int) -> None:
    made = UdpSockets()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((host, 0))
            receiver.settimeout(5)
            if family == socket.AF_INET:
                receiver.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
            else:
                receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            there = Endpoint(host, receiver.getsockname()[1])
            for count in (1, 3):
                one = batch(count, remote=there)
                one.hop_limit = hop_limit
                assert made.send([one]) == (1, None)
                for _ in range(count):
                    _, ancillary, _, _ = receiver.recvmsg(2048, 64)
                    (found,) = (struct.unpack("=i", data)[0] for _, _, data in ancillary)
                    assert found == (hop_limit or 64)
    finally:
        made.close()


def test_what_shall_go_another_number_of_hops_does_not_share_a_call(sockets: UdpSockets, kernel: Kernel) -> None:
    batches = [batch(2), batch(2), batch(2)]
    batches[1].hop_limit = 56
    sockets.send(batches)
    assert [count for count, _, _ in kernel.calls] == [2, 2, 2]

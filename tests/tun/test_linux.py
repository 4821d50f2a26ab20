"""The TUN driver without a kernel behind it: a pair of datagram sockets keeps the borders of packets just as well.

Protocol notes 4.2 to 4.6; B26, B27, B39, B73. The real device is in tests/e2e.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from tests.dataplane import kernel
from tests.property.strategies import TCP, UDP, PacketShape, received
from wgpy.errors import DeviceError, DropReason, TunnelClosed
from wgpy.tun.linux import LinuxTun, open_tun, tun_of_fd
from wgpy.wire import ip

PLAIN = bytes(10)


class Wire:
    """The kernel's end."""

    def __init__(self, *, has_header: bool = True, mtu: int = 1420) -> None:
        self.ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (self.ours, self.kernel):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            one.setblocking(False)
        self.has_header = has_header
        self.tun = LinuxTun(self.ours.detach(), name="tun", index=7, mtu=mtu, has_header=has_header, joins_udp=True)

    def give(self, header: bytes, packet: bytes) -> None:
        self.kernel.send(header + packet if self.has_header else packet)

    def written(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.kernel.recv(70000))
            except BlockingIOError:
                return found

    def read(self) -> list[list[bytes]]:
        """The packets of each slab, after a look at their padding."""
        slabs = []
        for slab in self.tun.read_batch():
            assert len({(slab.destination, slab.traffic_class)}) == 1
            packets = []
            for row in slab:
                length = ip.true_length_untrusted(row)
                assert not any(row[length:]), "B27: zeros"
                assert len(row) % 16 == 0 or len(row) >= self.tun.mtu
                packets.append(bytes(row[:length]))
            slabs.append(packets)
        return slabs


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.tun.close()
    made.kernel.close()


@pytest.fixture
def bare() -> Iterator[Wire]:
    """Without offload headers: WGPY_TUN_OFFLOAD=0."""
    made = Wire(has_header=False)
    yield made
    made.tun.close()
    made.kernel.close()


STREAM = PacketShape(payload=bytes(n * 7 & 0xFF for n in range(45 * 1368 - 300)), options=b"\1" * 12)


def expected(shape: PacketShape, size: int, found: list[bytes]) -> list[bytes]:
    parts = kernel.segments(shape, size)
    if shape.version == 4:
        parts = [
            part.but(identification=kernel.parse(one).identification) for part, one in zip(parts, found, strict=True)
        ]
    return [part.build() for part in parts]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("family", [4, 6])
def test_superpackets_become_slabs_whether_expected_or_not(wire: Wire, family: int, protocol: int) -> None:
    """The first of a cut is copied, the next ones are read to where they are sealed."""
    shape = STREAM.but(protocol=protocol, options=b"" if protocol == UDP else STREAM.options)
    shape = shape if family == 4 else shape.six()
    for number, size in enumerate([1300, 1300, 1300, 700, 1300, 1300]):
        one = shape.but(sequence=number * 100_000, identification=number * 100)
        wire.give(*kernel.superpacket(one, size))
        found = [packet for slab in wire.read() for packet in slab]
        assert found == expected(one, size, found), f"superpacket {number}"


def test_several_superpackets_of_one_read_are_finished_together(wire: Wire) -> None:
    wire.give(*kernel.superpacket(STREAM, 1368))
    wire.read()
    shapes = [STREAM.but(sequence=n * 100_000, payload=STREAM.payload[: 1368 * 3 - n]) for n in range(9)]
    for shape in shapes:
        wire.give(*kernel.superpacket(shape, 1368))
    slabs = wire.read()
    assert len(slabs) == 9
    for shape, found in zip(shapes, slabs, strict=True):
        assert found == expected(shape, 1368, found)


def test_small_packets_to_one_place_share_a_slab(wire: Wire) -> None:
    small = [PacketShape(protocol=UDP, payload=bytes([n]) * 20) for n in range(5)]
    other = PacketShape(protocol=UDP, target=b"\x0a\0\0\x09", payload=bytes(20))
    marked = PacketShape(protocol=UDP, tos=3, payload=bytes(20))
    sent = [shape.build() for shape in (*small, marked, other)]
    for packet in sent:
        wire.give(PLAIN, packet)
    assert wire.read() == [sent[:5], sent[5:6], sent[6:]]


def test_packets_of_any_length_come_through(wire: Wire) -> None:
    lengths = [28, 29, 511, 512, 513, 1368, 1399, 1420]
    sent = [PacketShape(protocol=UDP, payload=bytes(length - 28)).build() for length in lengths]
    for packet in sent:
        wire.give(PLAIN, packet)
    assert [packet for slab in wire.read() for packet in slab] == sent


def test_s14_no_octet_of_an_earlier_packet_leaves_as_padding(wire: Wire) -> None:
    for length in (1420, 1399, 600, 1420, 513, 500, 70, 61, 29):
        packet = PacketShape(protocol=UDP, payload=b"\xff" * (length - 28)).build()
        wire.give(PLAIN, packet)
        assert wire.read() == [[packet]]


def test_a_packet_above_the_mtu_comes_through(wire: Wire) -> None:
    """B27, B39: the MTU was lowered while it waited."""
    wire.tun.mtu = 1280
    big = PacketShape(protocol=UDP, payload=bytes(1392)).build()
    wire.give(PLAIN, big)
    assert wire.read() == [[big]]


def test_a_checksum_that_is_left_to_us_is_finished(wire: Wire) -> None:
    for shape in (PacketShape(payload=b"x"), PacketShape(protocol=UDP, payload=b"y").six()):
        header, packet = kernel.superpacket(shape, 1)
        wire.give(header[:1] + b"\0" + header[2:4] + b"\0\0" + header[6:], packet)
        assert wire.read() == [[shape.build()]]


def test_what_is_wrong_is_counted_and_the_reader_goes_on(wire: Wire) -> None:
    good = PacketShape(protocol=UDP).build()
    wire.give(PLAIN, b"")
    wire.give(PLAIN, b"\x45" + bytes(18))
    wire.give(PLAIN, b"\x55" + bytes(40))
    wire.give(struct.pack("=BBHHHH", 1, 7, 0, 9, 20, 16), good)
    wire.give(struct.pack("=BBHHHH", 1, 1, 0, 9, 20, 16), good)
    wire.give(PLAIN, good)
    assert wire.read() == [[good]]
    assert wire.tun.drops == {DropReason.INNER_MALFORMED: 3, DropReason.BAD_OFFLOAD_HEADER: 2}


def test_one_read_is_bounded_and_the_rest_waits(wire: Wire) -> None:
    big = PacketShape(protocol=UDP, payload=bytes(1300)).build()
    for _ in range(20):
        wire.give(PLAIN, big)
    assert [len(wire.read()) for _ in range(3)] == [16, 4, 0]


# --- writing ---------------------------------------------------------------------------------------------------------


def stream(count: int) -> list[bytes]:
    return [PacketShape(sequence=n * 100, payload=bytes([n]) * 100, identification=n).build() for n in range(count)]


def test_a_run_is_one_write(wire: Wire) -> None:
    wire.tun.write_batch([received(stream(5))])
    (octets,) = wire.written()
    assert [shape.build() for shape in kernel.written(octets)] == stream(5)


def test_without_merging_or_without_header_each_packet_is_a_write(wire: Wire, bare: Wire) -> None:
    """Protocol notes 4.5: WGPY_TUN_GRO=0 and WGPY_TUN_OFFLOAD=0."""
    wire.tun.merges = False
    wire.tun.write_batch([received(stream(3))])
    assert wire.written() == [PLAIN + packet for packet in stream(3)]
    assert not bare.tun.merges
    bare.tun.write_batch([received(stream(3))])
    assert bare.written() == stream(3)
    bare.give(b"", stream(1)[0])
    assert bare.read() == [stream(1)]


def failing(wire: Wire, monkeypatch: pytest.MonkeyPatch, number: int, *, above: int = 0) -> None:
    """Let every write of more than `above` octets fail."""
    original = os.writev

    def writev(fd: int, buffers: Sequence[memoryview]) -> int:
        if fd == wire.tun.fd and sum(map(len, buffers)) > above:
            raise OSError(number, os.strerror(number))
        return original(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)


def test_a_kernel_that_refuses_superpackets_gets_the_packets_singly(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol notes 4.5: nothing is lost, merging is off from then on, with one warning."""
    warnings: list[str] = []
    wire.tun.on_warning = warnings.append
    failing(wire, monkeypatch, errno.EINVAL, above=200)
    udp = [PacketShape(protocol=UDP, payload=bytes([n]) * 100, identification=n).build() for n in range(3)]
    wire.tun.write_batch([received(stream(3))])
    found = wire.written()
    assert [one[:10] for one in found] == [PLAIN] * 3
    same = [kernel.parse(one[10:]).but(identification=0) for one in found]
    assert same == [kernel.parse(one).but(identification=0) for one in stream(3)]
    assert not wire.tun.merges
    assert len(warnings) == 1
    assert "coalescing is off" in warnings[0]
    wire.tun.write_batch([received(udp)])
    assert wire.written() == [PLAIN + packet for packet in udp]
    assert not wire.tun.drops


def test_a_refused_packet_is_counted(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(wire, monkeypatch, errno.EIO)
    wire.tun.write_batch([received(stream(3)), received([PacketShape(protocol=UDP).build()])])
    assert wire.tun.drops == {DropReason.TUN_WRITE_FAILED: 4}


def test_only_what_is_admitted_is_written(wire: Wire) -> None:
    """The rest is counted, and what stays together is still joined."""
    packets = stream(6)
    verdicts = iter([True, True, False, True, False, False])
    wire.tun.admits = lambda packet: next(verdicts)
    wire.tun.merges = False
    wire.tun.write_batch([received(packets)])
    assert wire.written() == [PLAIN + one for one in (packets[0], packets[1], packets[3])]
    assert wire.tun.drops == {DropReason.NOT_ADMITTED: 3}


def test_a_deleted_device_ends_reading_and_writing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol notes 3.6: EBADFD."""
    failing(wire, monkeypatch, errno.EBADFD)
    with pytest.raises(TunnelClosed, match="was deleted"):
        wire.tun.write_batch([received(stream(1))])

    def readv(fd: int, buffers: object) -> int:
        raise OSError(errno.EBADFD, "gone")

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(TunnelClosed, match="was deleted"):
        wire.tun.read_batch()


async def test_a_closed_device_says_so_and_closing_twice_is_no_error(wire: Wire) -> None:
    wire.tun.close()
    wire.tun.close()
    with pytest.raises(TunnelClosed):
        wire.tun.read_batch()
    with pytest.raises(TunnelClosed):
        wire.tun.write_batch([received(stream(1))])
    with pytest.raises(TunnelClosed):
        await wire.tun.wait_readable()


@pytest.mark.parametrize("name", ["", "a" * 16, "a b", "a/b", "a\nb", "é" * 8])
def test_a_name_that_is_none_is_refused_before_the_kernel_is_asked(name: str) -> None:
    with pytest.raises(DeviceError) as raised:
        open_tun(name)
    assert raised.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOENT, "modprobe tun"), (errno.EACCES, "CAP_NET_ADMIN"), (errno.EPERM, "root"), (errno.EMFILE, "open")],
)
def test_a_device_that_cannot_be_opened_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceError, match=words) as raised:
        open_tun("wg0")
    assert raised.value.errno == number


def test_a_descriptor_that_is_no_tun_device_is_refused() -> None:
    with open(os.devnull) as other, pytest.raises(DeviceError, match="not a TUN device"):
        tun_of_fd(other.fileno())

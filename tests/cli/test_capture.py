"""The pcapng that `wgpy capture` writes, read by scapy; R19."""

from __future__ import annotations

import errno
import io
import socket
import struct
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import PacketShape, packet_shapes
from wgpy.cli.capture import _open_packets, enhanced_packet, interface_description, section_header
from wgpy.errors import DeviceError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.utils import PcapNgReader


@given(st.lists(st.tuples(packet_shapes, st.integers(0, 2**61), st.booleans()), max_size=5))
def test_scapy_reads_what_was_written(packets: list[tuple[PacketShape, int, bool]]) -> None:
    octets = section_header() + interface_description("wg0")
    for shape, nanoseconds, is_outgoing in packets:
        octets += enhanced_packet(shape.build(), nanoseconds, is_outgoing=is_outgoing)
    reader = PcapNgReader(io.BytesIO(octets))
    found = list(reader)
    assert [bytes(one.original) for one in found] == [shape.build() for shape, _, _ in packets]
    for one, (_, nanoseconds, is_outgoing) in zip(found, packets, strict=True):
        assert abs(float(one.time) - nanoseconds / 1e9) < 1e-3 * max(1, nanoseconds / 1e12)
        assert one.direction == (2 if is_outgoing else 1)
    assert reader.interfaces[0][0] == 101, "LINKTYPE_RAW"


def test_every_block_has_its_length_at_both_ends() -> None:
    """draft-ietf-opsawg-pcapng section 3.1."""
    for block in (section_header(), interface_description("abc"), enhanced_packet(b"x" * 5, 1, is_outgoing=True)):
        (length,) = struct.unpack_from("<I", block, 4)
        assert len(block) == length
        assert block[-4:] == block[4:8]
        assert length % 4 == 0


@pytest.mark.parametrize("name", ["nosuch0", "\udcff\udcfe", "x" * 200])
def test_what_is_no_interface_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ordinary socket, which needs no privilege, takes these names no more than a packet socket does.
    class Packets(socket.socket):
        def __init__(self, *_: object) -> None:
            super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)

        def bind(self, address: Any) -> None:
            address[0].encode()
            raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(socket, "socket", Packets)
    with pytest.raises(DeviceError, match="No such device"):
        _open_packets(name)

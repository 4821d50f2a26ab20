"""Strategies that several test files share: keys, addresses, endpoints, packets with right headers, slabs of them."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from wgpy.config import Endpoint, Prefix
from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.dataplane.slab import Arena, Slab
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

key_octets = st.binary(min_size=32, max_size=32)
private_keys = key_octets.map(PrivateKey)
public_keys = key_octets.map(PublicKey)
preshared_keys = key_octets.map(PresharedKey)

ports = st.integers(1, 65535)
ipv4_addresses = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
ipv6_addresses = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
addresses = ipv4_addresses | ipv6_addresses
# No IPv4-mapped ones: those become IPv4.
numeric_endpoints = st.builds(
    lambda address, port: Endpoint(str(address), port),
    ipv4_addresses | ipv6_addresses.filter(lambda address: address.ipv4_mapped is None),
    ports,
)


def _prefix(version: int, number: int, length: int) -> Prefix:
    host_bits = (32 if version == 4 else 128) - length
    return Prefix(version, number >> host_bits << host_bits, length)


# Few addresses, so that prefixes nest and collide.
ipv4_prefixes = st.builds(
    _prefix, st.just(4), st.sampled_from([0, 1 << 31, 0xC0000200, 0xC00002FF, 2**32 - 1]), st.integers(0, 32)
) | st.builds(_prefix, st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 32))
ipv6_prefixes = st.builds(
    _prefix, st.just(6), st.sampled_from([0, 1 << 127, 0x20010DB8 << 96, 2**128 - 1]), st.integers(0, 128)
) | st.builds(_prefix, st.just(6), st.integers(0, 2**128 - 1), st.integers(0, 128))
prefixes = ipv4_prefixes | ipv6_prefixes


# --- packets, written out here and checked by scapy in tests/wire ----------------------------------------------------


def internet_sum(octets: bytes) -> int:
    """RFC 1071 word by word: slow, and written from the text."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@dataclass(frozen=True)
class PacketShape:
    """One TCP, UDP or other packet; `build` makes it with right lengths and checksums."""

    version: int = 4
    protocol: int = TCP
    source: bytes = b"\x0a\0\0\1"
    target: bytes = b"\x0a\0\0\2"
    source_port: int = 1000
    target_port: int = 2000
    sequence: int = 1
    acknowledgement: int = 77
    flags: int = ACK
    window: int = 502
    urgent: int = 0
    options: bytes = b""
    payload: bytes = b""
    tos: int = 0
    ttl: int = 64
    identification: int = 0
    fragment: int = 0x4000  # DF
    flow_label: int = 0
    ip_options: bytes = b""

    def but(self, **changes: object) -> PacketShape:
        """The same with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def six(self) -> PacketShape:
        """The same over IPv6."""
        prefix = bytes.fromhex("fd00") + bytes(10)
        return replace(self, version=6, source=prefix + self.source[-4:], target=prefix + self.target[-4:])

    @property
    def header_length(self) -> int:
        """Octets in front of the payload."""
        transport = {TCP: 20 + len(self.options), UDP: 8}.get(self.protocol, 0)
        return (20 + len(self.ip_options) if self.version == 4 else 40) + transport

    def build(self) -> bytes:
        """The packet."""
        if self.protocol == TCP:
            head = struct.pack(
                "!HHIIBBHHH",
                self.source_port,
                self.target_port,
                self.sequence & 0xFFFFFFFF,
                self.acknowledgement,
                (20 + len(self.options)) // 4 << 4,
                self.flags,
                self.window,
                0,
                self.urgent,
            )
            body, place = head + self.options + self.payload, 16
        elif self.protocol == UDP:
            body = struct.pack("!HHHH", self.source_port, self.target_port, 8 + len(self.payload), 0) + self.payload
            place = 6
        else:
            body, place = self.payload, 0
        if place:
            pseudo = self.source + self.target + struct.pack("!II", len(body), self.protocol)
            value = internet_sum(pseudo + body)
            if self.protocol == UDP:
                value = value or 0xFFFF
            body = body[:place] + value.to_bytes(2) + body[place + 2 :]
        if self.version == 6:
            first = 6 << 28 | self.tos << 20 | self.flow_label
            return struct.pack("!IHBB", first, len(body), self.protocol, self.ttl) + self.source + self.target + body
        length = 20 + len(self.ip_options)
        head = struct.pack(
            "!BBHHHBBH", 0x40 | length // 4, self.tos, length + len(body), self.identification, self.fragment,
            self.ttl, self.protocol, 0,
        )  # fmt: skip
        head += self.source + self.target + self.ip_options
        return head[:10] + internet_sum(head).to_bytes(2) + head[12:] + body


payloads = st.binary(max_size=64) | st.integers(0, 1400).map(lambda n: bytes(i * 7 & 0xFF for i in range(n)))
_shapes = st.builds(
    PacketShape,
    protocol=st.sampled_from([TCP, TCP, UDP, ICMP]),
    source=st.sampled_from([b"\x0a\0\0\1", b"\x0a\0\0\3"]),
    source_port=st.integers(0, 65535),
    sequence=st.integers(0, 2**32 - 1),
    acknowledgement=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 255),
    window=st.integers(0, 65535),
    options=st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8), b"\1" * 40]),
    payload=payloads,
    tos=st.integers(0, 255),
    ttl=st.integers(1, 255),
    identification=st.integers(0, 65535),
    fragment=st.sampled_from([0, 0x4000]),
    flow_label=st.integers(0, 2**20 - 1),
)
packet_shapes = _shapes | _shapes.map(PacketShape.six)


# --- slabs -----------------------------------------------------------------------------------------------------------


def received(packets: list[bytes], *, stride: int | None = None, first: int = 0) -> Slab:
    """A slab as it is after opening: rows of one length, only the last may be shorter."""
    length = len(packets[0])
    stride = (-(-length // 16) * 16 if stride is None else stride) + TRANSPORT_OVERHEAD
    assert all(len(packet) == length for packet in packets[:-1])
    assert len(packets[-1]) <= length
    buffer = bytearray(first + stride * len(packets))
    for row, packet in enumerate(packets):
        at = first + row * stride + TRANSPORT_HEADER_SIZE
        buffer[at : at + len(packet)] = packet
    return Slab(Arena(buffer), first, stride, len(packets), length, len(packets[-1]))


def slabs_of(packets: list[bytes]) -> list[Slab]:
    """Packets of any lengths as slabs of one row each."""
    return [received([packet]) for packet in packets]

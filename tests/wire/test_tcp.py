"""TCP headers: encode and decode invert each other; scapy says the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.errors import BadPacket
from wgpy.netstack.emission import Headers
from wgpy.wire import ip, tcp
from wgpy.wire.tcp import Segment

u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
options = st.fixed_dictionaries(
    {
        "mss": st.none() | u16,
        "scale": st.none() | st.integers(0, 14),
        "timestamps": st.none() | st.tuples(u32, u32),
        "sack_permitted": st.booleans(),
    }
)


@given(u16, u16, u32, u32, u8, u16, options)
def test_decode_inverts_encode(source, destination, sequence, acknowledgement, flags, window, options):
    octets = tcp.encode_options(**options)
    segment = Segment(source, destination, sequence, acknowledgement, flags, window, 20 + len(octets), **options)
    assert tcp.decode_untrusted(tcp.encode(segment, octets), 0, 20 + len(octets)) == segment


@given(st.none() | st.tuples(u32, u32), st.lists(st.tuples(u32, u32), min_size=1, max_size=4))
def test_decode_inverts_encode_of_blocks(timestamps, blocks):
    if timestamps is not None:
        blocks = blocks[:3]
    octets = tcp.encode_options(timestamps=timestamps, sack=tuple(blocks))
    assert len(octets) <= 40
    segment = Segment(1, 2, 3, 4, tcp.ACK, 5, 20 + len(octets), timestamps=timestamps, sack=tuple(blocks))
    assert tcp.decode_untrusted(tcp.encode(segment, octets), 0, 20 + len(octets)) == segment


@given(st.binary(max_size=80), st.integers(0, 10))
def test_hostile_bytes_raise_only_bad_packet(octets, at):
    try:
        segment = tcp.decode_untrusted(octets, min(at, len(octets)), len(octets))
    except BadPacket:
        return
    assert 20 <= segment.header_length <= len(octets)


@pytest.mark.parametrize("size", [0, 1, 2, 100, 1001])
@pytest.mark.parametrize("version", [4, 6])
def test_scapy_sees_the_same_packet(version, size):
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    local, remote = (
        (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))) if version == 4 else (bytes(15) + b"\2", bytes(15) + b"\3")
    )
    payload = bytes(range(256)) * 4
    packet = Headers(local, 1234, remote, 80).packet(
        1 << 40 | 7, 0xFFFFFFFF, tcp.ACK | tcp.PSH, 500, tcp.encode_timestamps(1, 2), payload[:size], 2
    )
    seen = (IP if version == 4 else IPv6)(packet)
    assert (seen[TCP].sport, seen[TCP].dport, seen[TCP].seq, seen[TCP].ack) == (1234, 80, 7, 0xFFFFFFFF)
    assert (str(seen[TCP].flags), seen[TCP].window) == ("PA", 500)
    assert ("Timestamp", (1, 2)) in seen[TCP].options
    assert bytes(seen[TCP].payload) == payload[:size]
    # Scapy's own checksums and lengths are the same.
    again = seen.copy()
    del again[TCP].chksum
    if version == 4:
        assert (seen.tos, seen.flags, seen.ttl) == (2, "DF", 64)
        del again.chksum, again.len
    else:
        assert (seen.tc, seen.hlim) == (2, 64)
        del again.plen
    assert bytes(again) == packet
    assert ip.true_length_untrusted(packet) == len(packet)

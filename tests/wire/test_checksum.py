"""The Internet checksum against RFC 1071 word by word, and against scapy."""

from __future__ import annotations

import warnings

from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import internet_sum
from wgpy.wire.checksum import checksum, folded, partial_sum, pseudo_header_sum, updated

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.utils import checksum as scapy_checksum

words = st.integers(0, 0xFFFF)
# Zeros and all ones: where the modulus has two faces.
octets = st.binary(max_size=100) | st.integers(0, 60).map(bytes) | st.integers(0, 60).map(lambda n: b"\xff" * n)


def test_the_example_of_rfc_1071() -> None:
    assert folded(partial_sum(bytes.fromhex("0001f203f4f5f6f7"))) == 0xDDF2


@given(octets)
def test_it_is_the_sum_of_the_words(data: bytes) -> None:
    assert checksum(data) == internet_sum(data)
    assert checksum(data) == scapy_checksum(data)
    assert checksum(memoryview(data)) == checksum(bytearray(data))


@given(octets, octets)
def test_sums_combine(one: bytes, other: bytes) -> None:
    one += bytes(len(one) % 2)
    assert checksum(other, partial_sum(one)) == checksum(one + other)


@given(octets)
def test_over_a_buffer_that_holds_its_checksum_it_is_zero(data: bytes) -> None:
    data += bytes(len(data) % 2)
    assert checksum(data + checksum(data).to_bytes(2)) == 0


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), st.integers(0, 255), words, octets)
def test_the_pseudo_header_is_that_of_the_rfcs(address: bytes, protocol: int, length: int, data: bytes) -> None:
    pseudo = address + address[::-1] + length.to_bytes(4) + protocol.to_bytes(4)
    total = pseudo_header_sum(address, address[::-1], protocol, length)
    assert 0 <= total <= 0xFFFF
    assert checksum(data, total) == internet_sum(pseudo + data)


@given(st.binary(min_size=2, max_size=40), words, st.data())
def test_rfc_1624_a_changed_word_updates_the_checksum(data: bytes, new: int, draw: st.DataObject) -> None:
    data = b"\x45" + data[1:] + bytes(len(data) % 2)  # never all zeros, as no header is
    at = 2 * draw.draw(st.integers(1, max(1, len(data) // 2 - 1)))
    if at + 2 > len(data):
        data += bytes(2)
    changed = data[:at] + new.to_bytes(2) + data[at + 2 :]
    assert updated(checksum(data), int.from_bytes(data[at : at + 2]), new) == checksum(changed)

"""A batch is its datagrams, back to back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgpy.config import Endpoint
from wgpy.protocol.datagrams import DatagramBatch

HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)


@given(st.binary(max_size=100), st.integers(0, 40), st.integers(0, 20))
def test_iteration_count_and_data_agree(octets: bytes, size: int, start: int) -> None:
    batch = DatagramBatch(bytearray(start) + octets, size, HERE, start=start)
    parts = [bytes(one) for one in batch]
    assert b"".join(parts) == bytes(batch.data) == octets
    assert len(parts) == batch.count
    assert all(len(part) == max(1, size) for part in parts[:-1])


def test_an_empty_datagram_is_one_datagram() -> None:
    assert [bytes(one) for one in DatagramBatch(b"", 0, HERE)] == [b""]


def test_what_arrives_is_what_was_sent_from_somewhere_else() -> None:
    batch = DatagramBatch(bytearray(b"..aaab"), 3, THERE, start=2, length=4, local="x", tos=2, owner="y")
    arrived = batch.arriving_from(HERE)
    assert [bytes(one) for one in arrived] == [b"aaa", b"b"]
    assert (arrived.remote, arrived.tos, arrived.local, arrived.owner) == (HERE, 2, None, None)
    assert repr(arrived) == "<DatagramBatch 2 x 3 192.0.2.1:1>"

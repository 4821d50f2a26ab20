"""What peers share: timestamps that never go back, jitter, the largest datagram; T14, S1, R14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.config import Endpoint
from wgpy.noise import tai64n
from wgpy.protocol.shared import Shared, largest_datagram


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 2**33, allow_nan=False)), min_size=1, max_size=40))
def test_s1_no_peer_ever_sees_a_timestamp_go_back(script: list[tuple[int, float]]) -> None:
    clock = [0.0]
    shared = Shared(random=bytes, wall_clock=lambda: clock[0])
    last: dict[int, bytes] = {}
    for peer, clock[0] in script:
        stamp = shared.next_timestamp(last.get(peer, b""))
        assert stamp > last.get(peer, b"")
        assert stamp == shared.greatest_timestamp == max([stamp, *last.values()])
        last[peer] = stamp


def test_s1_a_stored_timestamp_outlives_a_clock_that_was_set_back() -> None:
    stored = tai64n.timestamp(2_000_000_000.0)
    shared = Shared(random=bytes, wall_clock=lambda: 1_000_000_000.0, last_timestamp=stored)
    assert shared.next_timestamp(b"") > stored, "an equal one would be refused"


@pytest.mark.parametrize(("octets", "expected"), [(bytes(4), 0.0), (b"\x80\0\0\0", 0.5), (b"\xff" * 4, 1 - 2**-32)])
def test_jitter_is_a_number_from_0_up_to_1(octets: bytes, expected: float) -> None:
    assert Shared(random=lambda count: octets[:count], wall_clock=float).unit() == expected


def test_the_largest_datagram_depends_on_the_family() -> None:
    assert largest_datagram(Endpoint("192.0.2.1", 1)) == 65535 - 20 - 8
    assert largest_datagram(Endpoint("2001:db8::1", 1)) == 65535 - 8

"""The handshake timestamp: T13, T14, S1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgpy.constants import TIMESTAMP_GRANULARITY_NS
from wgpy.noise.tai64n import next_after, timestamp

times = st.floats(0, 2**33, allow_nan=False)


def test_the_base_is_2_to_62_plus_10() -> None:
    assert timestamp(0).hex() == "400000000000000a00000000"
    assert timestamp(1_700_000_000.999).hex() == "400000006553f10a3b000000"


@given(times, times)
def test_it_is_ordered_as_the_clock_and_coarse(one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    assert timestamp(earlier) <= timestamp(later)
    nanoseconds = int.from_bytes(timestamp(one)[8:])
    assert nanoseconds < 10**9
    assert nanoseconds % TIMESTAMP_GRANULARITY_NS == 0


@given(st.lists(times, min_size=2, max_size=100))
def test_t14_whatever_the_clock_does_each_is_greater_than_the_one_before(clock: list[float]) -> None:
    """S1: a clock that was set back makes no timestamp that the responder refuses."""
    last = timestamp(clock[0])
    for moment in clock[1:]:
        following = next_after(last, moment)
        assert following > last
        assert following >= timestamp(moment)
        assert int.from_bytes(following[8:]) < 10**9
        last = following


def test_t14_a_step_beyond_the_end_of_a_second_carries() -> None:
    last = (2**62 + 10).to_bytes(8) + (59 * TIMESTAMP_GRANULARITY_NS).to_bytes(4)
    assert next_after(last, 0.0) == (2**62 + 11).to_bytes(8) + bytes(4)
    assert next_after(last[:8] + bytes(4), 0.0)[8:] == TIMESTAMP_GRANULARITY_NS.to_bytes(4)

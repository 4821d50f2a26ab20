"""RTT, HyStart++, ports and sequence numbers: small states by themselves."""

import random

import pytest

from wgpy.netstack.constants import EPHEMERAL_FIRST, EPHEMERAL_LAST
from wgpy.netstack.ports import Secret, choose_port
from wgpy.netstack.tcp.hystart import HyStart
from wgpy.netstack.tcp.options import scale_for, unwrapped
from wgpy.netstack.tcp.rtt import RoundTrip


def test_the_estimator_follows_rfc_6298():
    trip = RoundTrip()
    assert trip.timeout == 1.0
    trip.sample(0.5, 0.0)
    assert (trip.smoothed, trip.variation, trip.timeout) == (0.5, 0.25, 1.5)
    trip.sample(0.9, 1.0)
    assert trip.variation == pytest.approx(0.75 * 0.25 + 0.25 * 0.4)
    assert trip.smoothed == pytest.approx(0.875 * 0.5 + 0.125 * 0.9)


@pytest.mark.parametrize("rtt", [0.0, 1e-9, 0.0001])
def test_a_short_path_keeps_the_floor(rtt):
    """Field bug 5."""
    trip = RoundTrip()
    for moment in range(50):
        trip.sample(rtt, float(moment))
    assert trip.timeout == 0.2
    assert trip.smoothed > 0


def test_backoff_ends_at_two_minutes_and_with_a_sample():
    trip = RoundTrip()
    trip.sample(0.1, 0.0)
    trip.backoff = 40
    assert trip.timeout == 120.0
    trip.sample(0.1, 1.0)
    assert trip.timeout < 0.5


def test_the_smallest_rtt_is_of_late():
    trip = RoundTrip()
    trip.sample(0.01, 0.0)
    trip.sample(0.05, 100.0)
    assert trip.smallest == 0.01
    trip.sample(0.06, 301.0)
    assert trip.smallest == 0.06


def _round(hystart, number, rtt):
    """One round of ten ACKs; whether slow start ended."""
    return any(hystart.acknowledged(100 * number + ack + 1, 100 * (number + 1), rtt) for ack in range(10))


def test_hystart_slows_down_when_the_rtt_grows_and_ends_after_five_rounds():
    hystart = HyStart()
    assert not _round(hystart, 0, 0.1)
    assert not _round(hystart, 1, 0.1)
    assert hystart.growth(4000) == 4000
    assert not _round(hystart, 2, 0.12)
    assert hystart.growth(4000) == 1000
    ends = [_round(hystart, number, 0.12) for number in range(3, 8)]
    assert ends == [False, False, False, False, True]


def test_hystart_takes_it_back_when_the_rtt_falls():
    hystart = HyStart()
    for number, rtt in enumerate((0.1, 0.1, 0.12, 0.1)):
        assert not _round(hystart, number, rtt)
    assert hystart.growth(4000) == 4000


def test_small_changes_of_the_rtt_mean_nothing():
    hystart = HyStart()
    for number in range(20):
        assert not _round(hystart, number, 0.1 + number % 2 * 0.003)
    assert hystart.growth(4000) == 4000


def test_every_port_of_the_range_is_found_and_then_none():
    taken = set()
    first = 50_000
    for _ in range(EPHEMERAL_LAST - EPHEMERAL_FIRST + 1):
        port = choose_port(first, lambda one: one not in taken)
        assert port is not None
        taken.add(port)
        first = port  # which is taken now
    assert taken == set(range(EPHEMERAL_FIRST, EPHEMERAL_LAST + 1))
    assert choose_port(50_000, lambda one: one not in taken) is None
    taken.discard(49_999)
    assert choose_port(50_000, lambda one: one not in taken) == 49_999, "once around"


def test_initial_numbers_of_one_flow_follow_the_clock():
    """RFC 6528: a reincarnation begins above what came before."""
    secret = Secret(random.Random(1).randbytes)
    first = secret.initial_sequence(b"flow", 1000.0)
    assert (secret.initial_sequence(b"flow", 1001.0) - first) & 0xFFFFFFFF == 250_000


@pytest.mark.parametrize("reference", [0, 5, (1 << 32) - 1, 1 << 32, (1 << 40) + 7])
def test_numbers_unwrap_to_the_nearest(reference):
    for offset in (-(1 << 31), -1, 0, 1, (1 << 31) - 1):
        assert unwrapped((reference + offset) & 0xFFFFFFFF, reference) == reference + offset


def test_the_scale_is_the_smallest_that_says_the_limit():
    for limit in (1, 65_535, 65_536, 1 << 20, 4 << 20, 0xFFFF << 14):
        scale = scale_for(limit)
        assert 0xFFFF << scale >= limit
        assert scale == 0 or 0xFFFF << scale - 1 < limit

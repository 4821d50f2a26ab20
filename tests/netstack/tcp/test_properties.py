"""TCP over bad weather (suite B): whatever the network does, the stream is what was written."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.netstack.tcp.conversation import Eavesdropper, everything_is_forgotten, join, talk
from wgpy.dataplane import rows as plain
from wgpy.testing.link import Link

weather = st.fixed_dictionaries(
    {
        "seed": st.integers(1, 1 << 30),
        "loss": st.sampled_from((0.0, 0.0, 0.01, 0.05, 0.3)),
        "repeats": st.sampled_from((0.0, 0.0, 0.1)),
        "damage": st.sampled_from((0.0, 0.0, 0.02)),
        "jitter": st.sampled_from((0.0, 0.001, 0.03)),
        "delay": st.sampled_from((0.0, 0.0005, 0.01, 0.1)),
        "is_merged": st.booleans(),
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    weather,
    st.sampled_from((576, 1280, 1420, 9000)),
    st.sampled_from((4, 6)),
    st.tuples(st.integers(0, 150_000), st.integers(0, 30_000)),
    st.booleans(),
)
def test_the_stream_arrives_whole_whatever_the_network_does(weather, mtu, version, octets, lazy):
    if version == 6:
        mtu = max(mtu, 1280)
    link = join(Link(**weather, is_tapped=False), mtu=mtu, version=version)
    Eavesdropper(link, mtu)
    first, *others = talk(link, octets=octets, seed=weather["seed"], lazy=lazy)
    if weather["loss"] < 0.3:
        assert first.connection.error is None
    for one, other in zip([first, *others], [*others, first], strict=True):
        # An exact prefix always; the whole when it was closed in order.
        assert other.stream.startswith(bytes(one.got))
        if one.is_closed:
            assert bytes(one.got) == other.stream
    if others and first.connection.error is None and others[0].connection.error is None:
        assert first.is_closed
        assert others[0].is_closed
    link.run(1500)
    for side in link.sides:
        assert everything_is_forgotten(side.stack)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(weather, st.integers(0, 300), st.sampled_from((0, 1)))
def test_an_abort_at_any_moment_ends_both_sides(weather, moment, who):
    link = join(Link(**weather, is_tapped=False))
    turns = [0]

    def step(talkers):
        turns[0] += 1
        if turns[0] == moment + 1 and who < len(talkers):
            talkers[who].connection.abort(link.now)

    talkers = talk(link, octets=(60_000, 60_000), seed=weather["seed"], step=step)
    for one, other in zip(talkers, reversed(talkers), strict=True):
        assert other.stream.startswith(bytes(one.got)) or one is other
    link.run(3000)
    for side in link.sides:
        assert everything_is_forgotten(side.stack)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_replays_octet_for_octet(seed):
    def play():
        link = join(Link(seed=seed, loss=0.05, jitter=0.01, repeats=0.02, damage=0.01))
        talk(link, octets=(80_000, 30_000), seed=seed)
        digest = hashlib.sha256()
        for tapped in link.tap:
            digest.update(tapped.packet)
        return digest.digest(), link.now

    assert play() == play()


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_the_row_functions_without_numpy_send_the_same_octets(loss):
    def play(**options):
        link = join(Link(seed=9, loss=loss, jitter=0.0), **options)
        talk(link, octets=(200_000, 50_000), seed=5)
        return [(tapped.time, tapped.packet) for tapped in link.tap]

    assert play() == play(rows=plain)


@pytest.mark.parametrize("version", [4, 6])
def test_a_window_is_never_exceeded_by_a_slow_reader(version):
    link = join(Link(seed=4, delay=0.02, is_tapped=False), version=version)
    Eavesdropper(link, 1420)
    first, second = talk(link, octets=(400_000, 0), lazy=True, limit=10_000)
    assert bytes(second.got) == first.stream

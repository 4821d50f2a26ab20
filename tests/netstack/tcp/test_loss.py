"""Timers, loss and congestion (suite A 14 to 21): exact segments on a virtual clock."""

import pytest

from wgpy.netstack.tcp.cubic import Cubic
from wgpy.netstack.tcp.keepalive import Keepalive
from wgpy.netstack.tcp.scoreboard import Run, Scoreboard
from wgpy.testing.script import Script

MSS = 1380


def _octets(segment: int) -> int:
    """Relative sequence number of the first octet of a segment, counted from 0."""
    return 1 + segment * MSS


def _send(script, connection, segments):
    """Write whole segments and take what leaves at once off the record."""
    connection.write(bytes(segments * MSS), script.now)
    script.collect()
    script.sent.clear()


# --- timers ----------------------------------------------------------------------------------------------------------


def test_the_timeout_doubles_and_only_a_new_octet_resets_it():
    """N14: backoff; Karn: what was sent twice gives no sample."""
    script = Script()
    connection = script.open(sack=False, delay=0.1)
    connection.write(b"x" * 100, script.now)
    script.expect("PA", seq=1)
    # RTT 0.1: SRTT 0.1, RTTVAR 0.05, RTO 0.3.
    start = script.elapsed
    script.sleep(3)
    for moment in (0.3, 0.9, 2.1):
        script.expect("PA", at=start + moment, seq=1, length=100)
    srtt = connection.info().srtt
    script.inject("A", seq=1, ack=101)
    assert connection.info().srtt == srtt
    assert connection.info().rto == pytest.approx(0.3 * 8)
    connection.write(b"y" * 100, script.now)
    script.expect("PA", seq=101)
    script.sleep(0.1)
    script.inject("A", seq=1, ack=201)
    assert connection.info().rto == pytest.approx(0.1 + 4 * 0.0375, abs=0.001)


def test_a_partial_acknowledgement_restarts_the_timer():
    """N14, RFC 6298 5.3."""
    script = Script()
    connection = script.open(sack=False)
    _send(script, connection, 3)
    script.sleep(0.15)
    script.inject("A", seq=1, ack=_octets(1))
    start = script.elapsed
    rto = connection.info().rto
    script.sleep(rto + 0.001)
    script.expect("A", at=start + rto, seq=_octets(1), length=MSS)


def test_fifteen_retries_are_the_limit():
    """N15."""
    script = Script()
    connection = script.open(sack=False)
    connection.write(b"x", script.now)
    script.expect("PA")
    script.sleep(3000)
    assert len([sent for sent in script.sent if "R" not in sent.flags]) == 15
    assert isinstance(connection.error, TimeoutError)
    assert script.stack.next_deadline() is None


def test_a_user_timeout_is_exact():
    """N15, RFC 5482."""
    script = Script()
    connection = script.open()
    connection.set_user_timeout(7.0, script.now)
    connection.write(b"x", script.now)
    script.expect("PA")
    start = script.elapsed
    script.wait_for(lambda: connection.error is not None)
    assert script.elapsed - start == pytest.approx(7.0, abs=0.001)
    assert isinstance(connection.error, TimeoutError)
    assert script.sent[-1].flags == "RA"


# --- without SACK ----------------------------------------------------------------------------------------------------


def test_three_duplicates_and_the_first_segment_goes_again():
    """N16: fast retransmit, and limited transmit for the first two duplicates (RFC 3042)."""
    script = Script()
    connection = script.open(sack=False)
    script.inject("A", seq=1, ack=1)  # a window update is no duplicate
    connection.write(bytes(20 * MSS), script.now)
    script.expect_run(1, _octets(10), MSS)
    for extra in (10, 11):
        script.inject("A", seq=1, ack=1)
        script.expect("A", seq=_octets(extra), length=MSS)
    script.inject("A", seq=1, ack=1)
    script.expect("A", seq=1, length=MSS)
    assert connection.info().retransmits == 1


def test_a_partial_acknowledgement_repairs_the_next_hole():
    """N16: NewReno (RFC 6582)."""
    script = Script()
    connection = script.open(sack=False)
    script.inject("A", seq=1, ack=1)
    _send(script, connection, 10)
    for _ in range(3):
        script.inject("A", seq=1, ack=1)
    script.expect("A", seq=1, length=MSS)
    script.inject("A", seq=1, ack=_octets(4))
    script.expect("A", seq=_octets(4), length=MSS)
    script.inject("A", seq=1, ack=_octets(10))
    script.expect_nothing()
    assert connection.info().retransmits == 2
    assert connection.info().cwnd == connection.info().ssthresh == 7 * MSS


# --- with SACK -------------------------------------------------------------------------------------------------------


def test_sack_blocks_say_what_is_lost():
    """N17, RFC 2018 section 5, first case: the first of eight segments is lost... here of ten."""
    script = Script()
    connection = script.open()
    _send(script, connection, 10)
    for last in (2, 3):
        script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(last)),))
        script.expect_nothing()
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(4)),))
    script.expect("A", seq=1, length=MSS)
    script.inject("A", seq=1, ack=_octets(10))
    script.expect_nothing(for_seconds=5)
    assert connection.info().flight == 0


def test_every_second_segment_is_lost():
    """N17, RFC 2018 section 5, third case: only the holes are sent again, each once."""
    script = Script()
    connection = script.open()
    _send(script, connection, 10)
    script.sleep(0.01)
    blocks = ()
    again = []
    for arrived in (1, 3, 5, 7, 9):
        blocks = ((_octets(arrived), _octets(arrived + 1)), *blocks)
        script.inject("A", seq=1, ack=1, sack=blocks[:4])
    for arrived in range(10):
        again += [sent.seq for sent in script.sent]
        script.sent.clear()
        script.sleep(0.001)
        script.inject("A", seq=1, ack=_octets(arrived + 1 - arrived % 2), sack=blocks[:2])
    assert again == [_octets(one) for one in (0, 2, 4, 6, 8)]
    assert connection.info().retransmits == 5


def test_holes_at_both_ends_of_the_window():
    """N17."""
    script = Script()
    connection = script.open()
    _send(script, connection, 10)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(9)),))
    script.expect("A", seq=1, length=MSS)
    # The last one was sent at the same time as those that arrived, but after them: that is no loss.
    script.inject("A", seq=1, ack=_octets(9))
    script.expect_nothing()
    script.sleep(1)
    assert {sent.seq for sent in script.sent} == {_octets(9)}


def test_blocks_below_una_and_above_nxt_mean_nothing():
    """N17."""
    script = Script()
    connection = script.open()
    _send(script, connection, 5)
    script.inject("A", seq=1, ack=_octets(2))
    for block in ((_octets(7), _octets(9)), (_octets(3), _octets(6)), (_octets(4), _octets(3))):
        for _ in range(4):
            script.inject("A", seq=1, ack=_octets(2), sack=(block,))
    script.expect_nothing()
    assert connection.info().retransmits == 0


def test_a_dsack_is_counted_as_spurious():
    """N17, RFC 2883: the original arrived after all."""
    script = Script()
    connection = script.open(delay=0.1)
    _send(script, connection, 10)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(4)),))
    script.expect("A", seq=1, length=MSS)
    script.inject("A", seq=1, ack=_octets(10))
    script.inject("A", seq=1, ack=_octets(10), sack=((1, _octets(1)),))
    assert connection.info().spurious == 1
    # All that was sent again was for nothing: so was the reduction of the window.
    assert connection.info().cwnd >= 10 * MSS


def test_a_peer_that_reneges_gets_everything_again():
    """N17, RFC 2018 section 8: it SACKed what it then threw away."""
    script = Script()
    connection = script.open()
    _send(script, connection, 4)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(4)),))
    script.expect("A", seq=1, length=MSS)
    script.sleep(0.01)
    script.inject("A", seq=1, ack=_octets(1))
    script.sent.clear()
    script.sleep(1.0)
    script.inject("A", seq=1, ack=_octets(2))
    for acknowledged in (3, 4):
        script.sleep(1.0)
        script.inject("A", seq=1, ack=_octets(acknowledged) - 100)
    script.sleep(5.0)
    again = {octet for sent in script.sent for octet in range(sent.seq, sent.seq + len(sent.payload))}
    assert again >= set(range(_octets(1), _octets(4)))


def test_only_whole_segments_are_taken_for_arrived():
    """A scoreboard of an attacker's blocks has no more pieces than there are segments."""
    board = Scoreboard()
    board.append(Run(0, 10_000, 1000, 0.0, 0, 0.0))
    for octet in range(0, 10_000, 7):
        board.sack(((octet, octet + 900),), [])
    assert board.sacked == 0
    assert len(board.runs) == 1
    arrived = []
    assert board.sack(((1500, 4500),), arrived) == 2000
    assert [(one.start, one.end) for one in arrived] == [(2000, 4000)]
    assert [(run.start, run.end, run.is_sacked) for run in board.runs] == [
        (0, 2000, False),
        (2000, 4000, True),
        (4000, 10_000, False),
    ]


# --- RACK and TLP ----------------------------------------------------------------------------------------------------


def test_a_reordered_segment_is_waited_for():
    """N18: fewer than three segments SACKed: RACK waits a quarter of the RTT (RFC 8985 6.2)."""
    script = Script()
    connection = script.open(delay=0.1)
    _send(script, connection, 4)
    script.sleep(0.1)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(2)),))
    start = script.elapsed
    script.expect_nothing()
    script.sleep(0.05)
    script.expect("A", at=start + 0.025, seq=1, length=MSS)


def test_the_reordering_window_grows_with_each_dsack():
    """N18, RFC 8985 6.2 step 4."""
    script = Script()
    connection = script.open(delay=0.1)
    waits = []
    base = 1
    for _ in range(3):
        connection.write(bytes(4 * MSS), script.now)
        script.expect_run(base, base + 4 * MSS, MSS)
        script.sleep(0.1)
        script.inject("A", seq=1, ack=base, sack=((base + MSS, base + 2 * MSS),))
        start = script.elapsed
        script.wait_for(lambda: bool(script.sent))
        waits.append(script.expect("A", at=script.sent[0].time, seq=base).time - start)
        base += 4 * MSS
        script.inject("A", seq=1, ack=base, sack=((base - 4 * MSS, base - 3 * MSS),))
    assert waits == pytest.approx([0.025, 0.05, 0.075], abs=0.002)


@pytest.mark.parametrize("segments", [1, 2, 5])
def test_a_lost_tail_is_probed(segments):
    """N18: after two RTTs, and 200 ms more when only one segment is out (RFC 8985 7.2)."""
    script = Script()
    connection = script.open(delay=0.1)
    _send(script, connection, segments)
    start = script.elapsed
    pause = 0.2 if segments > 1 else 0.3  # the RTO of 0.3 comes before 0.4
    script.sleep(0.5)
    probe = script.expect("PA", at=start + pause, length=MSS)
    assert probe.seq == _octets(segments - 1)


def test_new_octets_are_the_better_probe():
    """N18: with room in the peer's window, something new is sent."""
    script = Script()
    connection = script.open(delay=0.1)
    connection.write(bytes(12 * MSS), script.now)
    script.expect_run(1, _octets(10), MSS)
    start = script.elapsed
    script.sleep(0.25)
    script.expect("A", at=start + 0.2, seq=_octets(10), length=MSS)


def test_a_probe_that_repaired_a_loss_costs_window():
    """N18, RFC 8985 7.4: the probe alone filled the hole, which congestion control must hear of."""
    script = Script()
    connection = script.open(delay=0.1)
    _send(script, connection, 5)
    script.sleep(0.1)
    script.inject("A", seq=1, ack=_octets(3))
    start = script.elapsed
    script.sleep(0.21)
    script.expect("PA", at=start + 0.2, seq=_octets(4))
    before = connection.info().cwnd
    connection.write(bytes(MSS), script.now)
    script.collect()
    script.inject("A", seq=1, ack=_octets(6))
    assert connection.info().cwnd < before


def test_a_probe_for_nothing_costs_nothing():
    """N18: a DSACK says that both arrived."""
    script = Script()
    connection = script.open(delay=0.1)
    _send(script, connection, 5)
    script.sleep(0.25)
    script.sent.clear()
    before = connection.info().cwnd
    script.inject("A", seq=1, ack=_octets(5), sack=((_octets(4), _octets(5)),))
    assert connection.info().cwnd >= before
    assert connection.info().ssthresh is None


def test_a_lost_retransmission_is_found_without_a_timeout():
    """N18: RACK sees that something sent after it arrived."""
    script = Script()
    connection = script.open(delay=0.05)
    connection.write(bytes(30 * MSS), script.now)
    script.expect_run(1, _octets(10), MSS)
    script.sleep(0.05)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(6)),))
    script.expect("A", seq=1, length=MSS)
    script.sleep(0.01)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(10)),))
    script.collect()
    fresh = script.sent[-1].seq
    assert fresh >= _octets(10)
    script.sent.clear()
    script.sleep(0.05)
    script.inject("A", seq=1, ack=1, sack=((_octets(1), fresh + MSS),))
    assert script.sent[0].seq == 1
    assert connection.info().retransmits == 2


# --- congestion ------------------------------------------------------------------------------------------------------


def test_recovery_reduces_in_proportion():
    """N19, RFC 9937: about seven segments leave for ten that arrive, until the window is 0.7 of what it was."""
    script = Script()
    connection = script.open()
    connection.write(bytes(40 * MSS), script.now)
    script.expect_run(1, _octets(10), MSS)
    script.sleep(0.01)
    out = []
    for arrived in range(2, 11):
        script.inject("A", seq=1, ack=1, sack=((_octets(1), _octets(arrived)),))
        out.append(len(script.sent))
        script.sent.clear()
    # Duplicates one and two let new segments out (limited transmit); the third brings the retransmission.
    assert out[:3] == [1, 1, 1]
    # From the third on seven segments arrived: 0.7 of them may leave, rounded up, the retransmission included.
    assert sum(out) == 2 + 5
    script.sleep(0.01)
    script.inject("A", seq=1, ack=_octets(12))
    info = connection.info()
    assert info.cwnd == info.ssthresh == int(10 * MSS * 0.7)


def test_the_cubic_curve_is_that_of_the_formula():
    """N20, RFC 9438 section 4.2: within one MSS, from the reduction to beyond the old window."""
    cubic = Cubic(1000)
    cubic.cwnd = cubic.ssthresh = 200_000
    cubic.congested(200_000)
    cubic.recovered()
    assert cubic.cwnd == 140_000
    rtt, now, reference, epoch = 0.1, 0.0, 140.0, 0.0
    k = ((200 - 140) / 0.4) ** (1 / 3)
    while now < k + 2:
        for _ in range(round(reference)):
            now += rtt / round(reference)
            cubic.acknowledged(1000, now, srtt=rtt, una=0, nxt=0, is_limited=True, rtt=None)
            epoch = epoch or now
            target = 0.4 * (now - epoch + rtt - k) ** 3 + 200
            reference += (min(max(target, reference), 1.5 * reference) - reference) / reference
            assert abs(cubic.cwnd / 1000 - reference) <= 1.0, f"at {now:.1f}"
    assert reference > 201


def test_on_a_short_path_cubic_is_as_fast_as_reno():
    """N20, RFC 9438 section 4.3: one segment per RTT times 0.53 until the old window, then one."""
    cubic = Cubic(1000)
    cubic.cwnd = cubic.ssthresh = 20_000
    cubic.congested(20_000)
    cubic.recovered()
    rtt, now = 0.001, 0.0
    for _ in range(10):
        for _ in range(cubic.cwnd // 1000):
            cubic.acknowledged(1000, now, srtt=rtt, una=0, nxt=0, is_limited=True, rtt=None)
        now += rtt
    assert cubic.cwnd == pytest.approx(14_000 + 10 * 529, rel=0.05)


def test_idleness_restarts_from_the_initial_window():
    """N20, RFC 5681 4.1."""
    script = Script()
    connection = script.open(delay=0.1)
    connection.write(bytes(64 * MSS), script.now)
    at = 1
    while at < _octets(64):
        script.sleep(0.1)
        at = connection.sender.nxt - connection.sender.iss
        script.inject("A", seq=1, ack=at)
    assert connection.info().cwnd > 10 * MSS
    script.sent.clear()
    script.sleep(10)
    connection.write(bytes(64 * MSS), script.now)
    script.collect()
    assert len(script.sent) == 10


def test_a_window_that_is_not_used_does_not_grow():
    """Field bug 6."""
    script = Script()
    connection = script.open(delay=0.1)
    at = 1
    for _ in range(200):
        connection.write(bytes(MSS), script.now)
        script.collect()
        script.sleep(0.1)
        at += MSS
        script.inject("A", seq=1, ack=at)
    assert connection.info().cwnd <= 11 * MSS


@pytest.mark.parametrize("every", [1, 2, 4])
def test_slow_start_counts_octets(every):
    """N21: ten segments at first; one ACK for each, for two or four: the window doubles all the same."""
    script = Script()
    connection = script.open(delay=0.0005)
    connection.write(bytes(60 * MSS), script.now)
    script.expect_run(1, _octets(10), MSS)
    script.expect_nothing()
    for arrived in (*range(every, 10, every), 10):
        script.inject("A", seq=1, ack=_octets(arrived))
    assert connection.info().cwnd == 20 * MSS
    assert len(script.sent) == 20


# --- what was for nothing --------------------------------------------------------------------------------------------


def test_a_timeout_that_was_too_early_is_taken_back():
    """RFC 3522: the acknowledgement echoes the first transmission."""
    script = Script()
    connection = script.open(timestamps=True, delay=0.05)
    _send(script, connection, 10)
    first = script.stack  # the moment of the first transmission, in the peer's words
    echo = script._last_timestamp
    script.sleep(0.6)
    assert connection.info().cwnd < 5 * MSS
    script.sent.clear()
    script.inject("A", seq=1, ack=1 + 5 * 1368, timestamps=(script.clock(), echo))
    assert connection.info().cwnd >= 10 * 1368
    assert connection.info().retransmits >= 1
    assert first.statistics().segments_retransmitted >= 1


def test_without_timestamps_the_originals_tell():
    """RFC 5682: after the timeout something arrives that was not sent again."""
    script = Script()
    connection = script.open(delay=0.05)
    _send(script, connection, 10)
    script.sleep(0.6)
    assert connection.info().cwnd < 5 * MSS
    script.inject("A", seq=1, ack=_octets(4))
    assert connection.info().cwnd >= 10 * MSS
    assert connection.info().ssthresh is None


def test_a_recovery_that_sent_nothing_again_costs_nothing():
    """Packets overtook each other within one batch: what was taken for lost arrives before it is sent again."""
    script = Script()
    connection = script.open()
    _send(script, connection, 10)
    script.sleep(0.005)
    script.inject_batch(
        script.packet("A", seq=1, ack=1, sack=((_octets(1), _octets(5)),)),
        script.packet("A", seq=1, ack=_octets(5)),
        script.packet("A", seq=1, ack=_octets(10)),
    )
    info = connection.info()
    assert info.retransmits == 0
    assert info.cwnd >= 10 * MSS
    assert info.ssthresh is None


def test_a_timeout_that_was_right_is_not():
    script = Script()
    connection = script.open(timestamps=True, delay=0.05)
    _send(script, connection, 10)
    script.sleep(0.35)
    again = [sent.seq for sent in script.sent]
    assert again[-1] == 1, "the last segment as a probe, then the first"
    script.sent.clear()
    script.inject("A", seq=1, ack=1 + 1368)
    assert connection.info().cwnd <= 3 * 1368


def test_full_segments_that_vanish_make_smaller_ones():
    """Field bug 9: no ICMP comes; after two timeouts the MSS is 1220, after two more 1200."""
    script = Script()
    connection = script.open(sack=False)
    connection.write(bytes(3 * MSS), script.now)
    script.collect()
    script.sent.clear()
    script.sleep(10)
    assert [len(sent.payload) for sent in script.sent[:5]] == [1380, 1220, 1220, 1200, 1200]


def test_a_block_beyond_what_was_sent_is_not_believed():
    """N17: neither one that begins there, nor one that only ends there, says anything about what was lost."""
    for block in ((1 + 4 * MSS, 1 + 5 * MSS), (1 + 3 * MSS, 1 + 5 * MSS), (1 + 2 * MSS, 2 + 4 * MSS)):
        script = Script()
        connection = script.open()
        _send(script, connection, 4)
        script.sent.clear()
        for _ in range(3):
            script.inject("A", seq=1, ack=1, sack=(block,))
        script.expect_nothing()
        assert not connection.sender.board.sacked
        assert connection.info().flight == 4 * MSS
        # And what is sent next is in flight, not taken for arrived.
        connection.write(bytes(MSS), script.now)
        script.collect()
        assert not connection.sender.board.sacked


# --- the way is open again -------------------------------------------------------------------------------------------


def everywhere(address):
    return True


def test_a_timer_that_outages_made_long_fires_at_once_when_the_way_is_open_again():
    script = Script()
    connection = script.open()
    connection.write(b"a line", script.now)
    script.expect("PA", payload=b"a line")
    script.sleep(100)
    tried = len(script.sent)
    script.sent.clear()
    script.stack.resume(lambda address: False, script.now)
    script.sleep(0)
    script.expect_nothing()
    script.stack.resume(everywhere, script.now)
    script.sleep(0)
    script.expect("PA", payload=b"a line")
    script.expect_nothing()
    assert tried > 5
    # What the outage counted is forgotten, and so is its pace.
    script.sleep(3)
    assert len(script.sent) >= 3
    script.inject("A", seq=1, ack=7)
    assert connection.is_established


def test_who_waits_for_nothing_long_is_left_alone():
    script = Script()
    connection = script.open()
    script.stack.resume(everywhere, script.now)
    connection.write(b"a line", script.now)
    script.expect("PA", payload=b"a line")
    script.stack.resume(everywhere, script.now)
    script.expect_nothing()


def test_a_syn_is_sent_again_at_once_when_the_way_is_open_again():
    script = Script()
    script.connect()
    script.expect("S")
    script.sleep(20)
    script.sent.clear()
    script.stack.resume(everywhere, script.now)
    script.sleep(0)
    script.expect("S")
    script.inject("SA", seq=0, ack=1)
    script.expect("A", seq=1, ack=1)


def test_a_closed_window_is_asked_about_at_once_when_the_way_is_open_again():
    script = Script()
    connection = script.open()
    script.inject("A", seq=1, ack=1, window=0)
    connection.write(b"a line", script.now)
    script.sleep(100)
    script.sent.clear()
    script.stack.resume(everywhere, script.now)
    script.sleep(0)
    script.expect("A", seq=0, length=0)
    script.inject("A", seq=1, ack=1)
    script.expect("PA", payload=b"a line")


def test_a_keepalive_that_was_not_answered_is_asked_again_when_the_way_is_open_again():
    script = Script()
    connection = script.open()
    connection.set_keepalive(Keepalive(idle=5, interval=10, probes=3), script.now)
    script.sleep(26)
    assert len(script.sent) == 3
    script.sent.clear()
    script.stack.resume(everywhere, script.now)
    script.sleep(0)
    script.expect("A", seq=0, length=0)
    script.sleep(25)
    assert connection.is_established, "two more were asked, and three may be"

"""Closing (suite A 9 to 13): exact segments on a virtual clock."""

import errno

import pytest

from wgpy.errors import DropReason
from wgpy.netstack.emission import Headers
from wgpy.netstack.tcp.states import State
from wgpy.netstack.tcp.timewait import TimeWait
from wgpy.testing.script import Script


def test_we_close_first_and_read_on():
    """N9: half-close, octets in FIN_WAIT_2, then TIME_WAIT."""
    script = Script()
    connection = script.open()
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1, ack=1, length=0)
    assert connection.state is State.FIN_WAIT_1
    script.inject("A", seq=1, ack=2)
    assert connection.state is State.FIN_WAIT_2
    script.inject("PA", seq=1, ack=2, payload=b"late")
    script.expect("A", seq=2, ack=5)
    assert connection.read(10, script.now) == b"late"
    script.inject("FA", seq=5, ack=2)
    script.expect("A", seq=2, ack=6)
    assert connection.state is State.TIME_WAIT
    assert connection.at_eof
    assert script.stack.statistics().time_wait == 1
    script.expect_nothing(for_seconds=60)
    assert script.stack.statistics().time_wait == 0
    assert script.stack.next_deadline() is None


def test_the_peer_closes_first_and_we_send_on():
    """N9: octets in CLOSE_WAIT, then LAST_ACK."""
    script = Script()
    connection = script.open()
    script.inject("FA", seq=1, ack=1)
    script.expect("A", ack=2)
    assert connection.state is State.CLOSE_WAIT
    assert connection.at_eof
    assert connection.read(10, script.now) == b""
    connection.write(b"late", script.now)
    script.expect("PA", seq=1, ack=2, payload=b"late")
    script.inject("A", seq=2, ack=5)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=5, ack=2)
    assert connection.state is State.LAST_ACK
    script.inject("A", seq=2, ack=6)
    assert connection.state is State.CLOSED
    assert connection.error is None
    assert script.stack.statistics().connections == 0


def test_both_close_at_once():
    """N10."""
    script = Script()
    connection = script.open()
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1, ack=1)
    script.inject("FA", seq=1, ack=1)
    script.expect("A", seq=2, ack=2)
    assert connection.state is State.CLOSING
    script.inject("A", seq=2, ack=2)
    assert connection.state is State.TIME_WAIT


def test_a_lost_fin_is_sent_again():
    """N11: three times lost."""
    script = Script()
    connection = script.open(sack=False)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1)
    start = script.elapsed
    script.sleep(1.5)
    for moment in (0.2, 0.6, 1.4):
        script.expect("FPA", at=start + moment, seq=1, length=0)
    script.inject("A", seq=1, ack=2)
    assert connection.state is State.FIN_WAIT_2
    script.expect_nothing(for_seconds=5)


def test_a_fin_rides_on_the_last_octets():
    """N11."""
    script = Script()
    connection = script.open()
    connection.write(bytes(2000), script.now)
    connection.shutdown_write(script.now)
    script.expect("A", seq=1, length=1380)
    script.expect("FPA", seq=1381, length=620)
    script.inject("A", seq=1, ack=2002)
    assert connection.state is State.FIN_WAIT_2


def test_a_fin_with_octets_is_taken_with_them():
    """N11."""
    script = Script()
    connection = script.open()
    script.inject("FPA", seq=1, ack=1, payload=b"bye")
    script.expect("A", ack=5)
    assert connection.read(10, script.now) == b"bye"
    assert connection.at_eof


def test_a_fin_ahead_of_a_hole_waits():
    """N11, field bug 14."""
    script = Script()
    connection = script.open()
    script.inject("FPA", seq=11, ack=1, payload=b"tail")
    script.expect("A", ack=1, sack=((11, 15),))
    assert connection.state is State.ESTABLISHED
    script.inject("A", seq=1, ack=1, payload=b"0123456789")
    script.expect("A", ack=16)
    assert connection.state is State.CLOSE_WAIT
    assert connection.read(100, script.now) == b"0123456789tail"
    assert connection.at_eof


def test_a_fin_outside_the_window_is_not_taken():
    """N11."""
    script = Script()
    connection = script.open()
    script.inject("FA", seq=1 + 0x20000, ack=1)
    script.expect("A", ack=1)
    assert connection.state is State.ESTABLISHED
    assert script.stack.drops[DropReason.TCP_UNACCEPTABLE] == 1


def test_octets_after_a_fin_are_no_part_of_the_stream():
    """Field bug 14: a FIN in the middle."""
    script = Script()
    connection = script.open()
    script.inject("FPA", seq=1, ack=1, payload=b"end")
    script.expect("A", ack=5)
    script.inject("PA", seq=5, ack=1, payload=b"more")
    assert connection.read(100, script.now) == b"end"
    assert connection.at_eof


def _into_time_wait(script, **options):
    connection = script.open(**options)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1)
    script.inject("FA", seq=1, ack=2)
    script.expect("A", ack=2)
    assert connection.state is State.TIME_WAIT
    return connection


def test_time_wait_acknowledges_the_fin_again():
    """N12."""
    script = Script()
    _into_time_wait(script)
    script.sleep(20)
    script.inject("FA", seq=1, ack=2)
    script.expect("A", seq=2, ack=2)
    # The time starts over.
    script.sleep(20)
    assert script.stack.statistics().time_wait == 1
    script.sleep(11)
    assert script.stack.statistics().time_wait == 0


@pytest.mark.parametrize("seq", [1, 3, 1000])
def test_time_wait_ignores_a_reset_that_is_not_exact(seq):
    """N12, RFC 1337."""
    script = Script()
    _into_time_wait(script)
    script.inject("R", seq=seq)
    script.expect_nothing()
    assert script.stack.statistics().time_wait == 1


def test_an_exact_reset_ends_time_wait():
    """N12: whoever sends it has forgotten the connection, and may want the next one at once."""
    script = Script()
    _into_time_wait(script)
    script.inject("R", seq=2)
    script.expect_nothing()
    assert script.stack.statistics().time_wait == 0


@pytest.mark.parametrize("end", [5_000_000, (1 << 32) - 10, (1 << 33) + 7])
def test_the_next_connection_begins_beyond_all_of_the_one_before(end):
    """RFC 6191, where octets were sent faster than the clock of initial sequence numbers counts."""
    headers = Headers(bytes((10, 0, 0, 1)), 80, bytes((10, 0, 0, 2)), 40000)
    record = TimeWait(headers, end, 1, 0, None, 0)
    for proposed in (end - 1_000_000, end, end + 1_000_000):
        ahead = (record.next_iss(proposed & 0xFFFFFFFF) - end) & 0xFFFFFFFF
        assert 0xFFFF < ahead < 0x80000000
    assert record.next_iss((end + 1_000_000) & 0xFFFFFFFF) == (end + 1_000_000) & 0xFFFFFFFF


def _passive_time_wait(script, **options):
    listener = script.listen()
    connection = script.accept(listener, **options)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1)
    script.inject("FA", seq=1, ack=2)
    script.expect("A", ack=2)
    assert connection.state is State.TIME_WAIT
    return listener


def test_a_syn_with_a_later_timestamp_takes_the_place_of_time_wait():
    """N12, RFC 6191."""
    script = Script()
    _passive_time_wait(script, timestamps=True)
    old = script.our_iss
    script.sleep(0.1)
    script.inject("S", seq=-1000, timestamps=True, mss=1380)
    answer = script.expect("SA", ack=-999)
    assert (answer.segment.sequence - old) & 0xFFFFFFFF < 0x80000000
    assert script.stack.statistics().time_wait == 0


def test_an_old_syn_does_not():
    """N12."""
    script = Script()
    _passive_time_wait(script, timestamps=True)
    script.inject("S", seq=-1000, timestamps=(1, 0), mss=1380)
    script.expect("A", ack=2)
    assert script.stack.statistics().time_wait == 1


@pytest.mark.parametrize(("seq", "flags"), [(3, "SA"), (-5, "A")])
def test_without_timestamps_the_sequence_number_decides(seq, flags):
    """N12."""
    script = Script()
    _passive_time_wait(script)
    script.inject("S", seq=seq)
    script.expect(flags)


def test_closing_with_unread_octets_resets():
    """N13, RFC 1122 4.2.2.13."""
    script = Script()
    connection = script.open()
    script.inject("PA", seq=1, ack=1, payload=b"unread")
    script.expect("A", ack=7)
    connection.close(script.now)
    script.expect("RA", seq=1, ack=7)
    assert connection.state is State.CLOSED


def test_octets_after_close_are_answered_with_a_reset():
    """N13, RFC 1122 4.2.2.13."""
    script = Script()
    connection = script.open()
    connection.close(script.now)
    script.expect("FPA", seq=1)
    script.inject("A", seq=1, ack=2)
    script.inject("PA", seq=1, ack=2, payload=b"who reads this?")
    script.expect("RA", seq=2)
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("we_closed", [False, True])
def test_a_reset_after_the_peers_end_takes_nothing_from_the_reader(we_closed):
    """As Linux: what came and the end are still read; only writing fails, with EPIPE."""
    script = Script()
    connection = script.open()
    if we_closed:
        connection.shutdown_write(script.now)
        script.expect("FPA", seq=1)
    script.inject("FPA", seq=1, ack=1, payload=b"whole")
    script.expect("A", ack=7)
    script.inject("R", seq=7)
    assert connection.state is State.CLOSED
    assert connection.read(10, script.now) == b"whole"
    assert connection.at_eof
    assert connection.read(10, script.now) == b""
    with pytest.raises(OSError, match=r".") as told:
        connection.write(b"x", script.now)
    assert told.value.errno == (errno.ECONNRESET if we_closed else errno.EPIPE)


def test_a_reset_before_the_peers_end_is_an_error():
    script = Script()
    connection = script.open()
    script.inject("PA", seq=1, ack=1, payload=b"half")
    script.inject("R", seq=5)
    assert connection.read(10, script.now) == b"half"
    with pytest.raises(ConnectionResetError):
        connection.read(10, script.now)


def test_abort_resets_and_forgets():
    """N13."""
    script = Script()
    connection = script.open()
    connection.write(bytes(100_000), script.now)
    script.expect_run(1, 1 + 10 * 1380, 1380)
    connection.abort(script.now)
    script.expect("RA", seq=1 + 10 * 1380, ack=1)
    script.expect_nothing(for_seconds=100)
    with pytest.raises(OSError, match="abort"):
        connection.write(b"x", script.now)


def test_linger_sends_what_was_written_and_then_resets():
    """N13: the peer never acknowledges."""
    script = Script()
    connection = script.open()
    connection.write(b"last words", script.now)
    connection.close(script.now, linger=3.0)
    script.expect("FPA", seq=1, payload=b"last words")
    start = script.elapsed
    script.sleep(10)
    assert script.sent[-1].flags == "RA"
    assert script.sent[-1].time == pytest.approx(start + 3.0, abs=0.001)
    assert all(sent.payload == b"last words" for sent in script.sent[:-1])
    assert script.stack.next_deadline() is None


def test_linger_of_zero_resets_at_once():
    """N13."""
    script = Script()
    connection = script.open()
    connection.write(b"never sent", script.now)
    connection.close(script.now, linger=0)
    script.expect("RA", seq=1)
    script.expect_nothing(for_seconds=10)


def test_a_graceful_close_takes_the_time_it_needs():
    """N13: acknowledged in time, no reset follows; the orphan leaves FIN_WAIT_2 after 60 seconds."""
    script = Script()
    connection = script.open()
    connection.close(script.now)
    script.expect("FPA", seq=1)
    script.inject("A", seq=1, ack=2)
    assert connection.state is State.FIN_WAIT_2
    script.expect_nothing(for_seconds=59)
    assert connection.state is State.FIN_WAIT_2
    script.expect_nothing(for_seconds=2)
    assert connection.state is State.CLOSED


def test_half_closed_before_it_was_open():
    """A FIN follows the handshake when the connection was shut down for writing in SYN_SENT."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    connection.write(b"early", script.now)
    connection.shutdown_write(script.now)
    script.inject("SA", seq=0, ack=1, mss=1380)
    script.expect("FPA", seq=1, ack=1, payload=b"early")
    assert connection.state is State.FIN_WAIT_1


def test_writing_after_shutdown_fails():
    script = Script()
    connection = script.open()
    connection.shutdown_write(script.now)
    connection.shutdown_write(script.now)
    script.expect("FPA")
    with pytest.raises(BrokenPipeError):
        connection.write(b"x", script.now)
    script.expect_nothing()

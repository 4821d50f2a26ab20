"""Windows and acknowledgements (suite A 22 to 25): exact segments on a virtual clock."""

import pytest

from wgpy.dataplane.slab import Slab
from wgpy.testing.script import Script

MSS = 1380


# --- the peer's window -----------------------------------------------------------------------------------------------


def test_a_closed_window_is_probed_and_the_probes_take_no_octet():
    """N22: at RTO, doubling; an old sequence number makes the peer answer (field bug 13)."""
    script = Script()
    connection = script.open(delay=0.1)
    connection.write(b"x" * 1000, script.now)
    script.expect("PA", seq=1, length=1000)
    script.sleep(0.1)
    script.inject("A", seq=1, ack=1001, window=0)
    connection.write(b"y" * 500, script.now)
    start = script.elapsed
    rto = connection.info().rto
    script.expect_nothing()
    moments = [rto, 3 * rto, 7 * rto, 15 * rto]
    for moment in moments:
        script.sleep_until(start + moment + 0.01)
        script.expect("A", at=start + moment, seq=1000, length=0)
        script.inject("A", seq=1, ack=1001, window=0)
    script.inject("A", seq=1, ack=1001, window=511)
    script.expect("PA", seq=1001, payload=b"y" * 500)


def test_answered_probes_go_on_for_ever_and_unanswered_do_not():
    """N22."""
    script = Script()
    connection = script.open()
    script.inject("A", seq=1, ack=1, window=0)
    connection.write(b"y", script.now)
    for _ in range(40):
        script.wait_for(lambda: bool(script.sent))
        script.expect("A", at=script.sent[0].time, seq=0, length=0)
        script.inject("A", seq=1, ack=1, window=0)
    assert connection.error is None
    script.sleep(3000)
    assert isinstance(connection.error, TimeoutError)


def test_a_fin_waits_for_a_window():
    """N22: FIN under a closed window."""
    script = Script()
    connection = script.open()
    script.inject("A", seq=1, ack=1, window=0)
    connection.shutdown_write(script.now)
    script.expect_nothing()
    script.inject("A", seq=1, ack=1, window=511)
    script.expect("FPA", seq=1)


def test_a_window_that_shrinks_holds_back_what_is_beyond():
    """N23: what is out is repaired at the front, and nothing new leaves."""
    script = Script()
    connection = script.open(sack=False)
    connection.write(bytes(20 * MSS), script.now)
    script.expect_run(1, 1 + 10 * MSS, MSS)
    script.inject("A", seq=1, ack=1 + MSS, window=MSS >> 7)
    script.expect_nothing()
    start = script.elapsed
    script.sleep(0.25)
    script.expect("A", at=start + 0.2, seq=1 + MSS, length=MSS)
    assert not script.sent


def test_we_do_not_send_silly_segments():
    """N23: a window of less than a segment and of less than half of the greatest one is left alone for a while."""
    script = Script()
    connection = script.open(scale=0, window=4000)
    connection.write(bytes(8000), script.now)
    script.expect_run(1, 1 + 2 * MSS, MSS)
    script.inject("A", seq=1, ack=1 + 2 * MSS, window=900)
    script.expect_nothing()
    # RFC 1122 4.2.3.4: not for ever.
    start = script.elapsed
    script.sleep(0.25)
    script.expect("A", at=start + 0.2, seq=1 + 2 * MSS, length=900)


# --- our window ------------------------------------------------------------------------------------------------------


def _fill(script, size=1024):
    """Let the peer send as much as it may; returns the relative sequence number after it."""
    at, edge = 1, 1 + 0xFFFF
    while at < edge:
        piece = min(size, edge - at)
        script.inject("PA", seq=at, ack=1, payload=bytes(piece))
        at += piece
        script.collect()
        for sent in script.sent:
            edge = max(edge, sent.ack + (sent.segment.window << 7))
        script.sent.clear()
    return at


def test_a_full_buffer_closes_the_window_and_never_takes_more():
    """N22, field bug 16: nobody reads."""
    script = Script()
    connection = script.open()
    at = _fill(script)
    assert connection.info().receive_buffered == at - 1 <= 65536
    script.inject("PA", seq=at, ack=1, payload=b"beyond")
    script.expect("A", ack=at, window=0)
    assert connection.info().receive_buffered == at - 1


def test_reading_opens_the_window_and_the_peer_hears_of_it():
    """N22, N23: not for a few octets, but at once when it is worth it."""
    script = Script()
    connection = script.open()
    at = _fill(script)
    connection.read(100, script.now)
    script.expect_nothing()
    connection.read(1 << 20, script.now)
    update = script.expect("A", ack=at)
    assert update.segment.window << 7 >= 65536 - 128


def test_the_edge_never_moves_left():
    """N23: save by the granularity of a scaled window (RFC 7323 2.4)."""
    script = Script()
    connection = script.open()
    at, edge = 1, 0
    for step in range(400):
        piece = 1 + step * 37 % 1000
        script.inject("PA", seq=at, ack=1, payload=bytes(piece))
        at += piece
        if step % 3 == 0:
            connection.read(step * 11, script.now)
        script.collect()
        for sent in script.sent:
            assert sent.ack + (sent.segment.window << 7) > edge - 128
            edge = max(edge, sent.ack + (sent.segment.window << 7))
        script.sent.clear()


def test_a_fast_reader_gets_a_greater_window():
    """Section 10.8: doubled when half of it was read within a round trip, up to 4 MiB."""
    script = Script()
    connection = script.open(delay=0.05)
    at, windows = 1, []
    for _ in range(12):
        room = connection.info().receive_window
        while room > 0:
            piece = min(room, 60_000)
            script.inject("A", seq=at, ack=1, payload=bytes(piece))
            at += piece
            room -= piece
        script.sleep(0.06)
        while connection.read(1 << 20, script.now):
            pass
        script.collect()
        windows.append(connection.info().receive_window)
    assert windows == sorted(windows)
    assert windows[-1] > 4 * 2**20 - 2 * MSS
    assert max(windows) <= 4 * 2**20


# --- Nagle -----------------------------------------------------------------------------------------------------------


def test_small_writes_leave_at_once_by_default():
    """N24."""
    script = Script()
    connection = script.open()
    for number in range(3):
        connection.write(b"x", script.now)
        script.expect("PA", seq=1 + number, length=1)


def test_writes_of_one_turn_share_a_segment():
    """N24: nothing is sent before `emit` is asked."""
    script = Script()
    connection = script.open()
    for _ in range(100):
        connection.write(b"ten octets", script.now)
    script.expect("PA", seq=1, payload=b"ten octets" * 100)
    assert not script.sent


def test_nagle_holds_small_octets_while_some_are_out():
    """N24."""
    script = Script()
    connection = script.open()
    connection.set_no_delay(False, script.now)
    connection.write(b"a", script.now)
    script.expect("PA", seq=1, payload=b"a")
    connection.write(b"b", script.now)
    connection.write(b"c", script.now)
    script.expect_nothing(for_seconds=0.01)
    script.inject("A", seq=1, ack=2)
    script.expect("PA", seq=2, payload=b"bc")


def test_nagle_sends_full_segments_and_keeps_the_rest():
    """N24."""
    script = Script()
    connection = script.open()
    connection.set_no_delay(False, script.now)
    connection.write(bytes(1000), script.now)
    script.expect("PA", seq=1, length=1000)
    connection.write(bytes(MSS + 20), script.now)
    script.expect("A", seq=1001, length=MSS)
    script.expect_nothing()
    script.inject("A", seq=1, ack=1001 + MSS)
    script.expect("PA", seq=1001 + MSS, length=20)


def test_a_close_ends_the_wait():
    """N24."""
    script = Script()
    connection = script.open()
    connection.set_no_delay(False, script.now)
    connection.write(b"a", script.now)
    script.expect("PA")
    connection.write(b"b", script.now)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=2, payload=b"b")


# --- acknowledging ---------------------------------------------------------------------------------------------------


def _past_quick_acks(script):
    """Let sixteen segments pass, which are acknowledged at once."""
    for number in range(16):
        script.inject("A", seq=1 + number * 1000, ack=1, payload=bytes(1000))
    script.collect()
    script.sent.clear()
    return 1 + 16 * 1000


def test_the_first_segments_are_acknowledged_at_once():
    """N25."""
    script = Script()
    script.open()
    for number in range(16):
        script.inject("A", seq=1 + number * 1000, ack=1, payload=bytes(1000))
        script.expect("A", ack=1001 + number * 1000)


def test_two_full_segments_are_acknowledged_at_once_and_one_a_little_later():
    """N25: a quarter of the RTT, 40 ms at most."""
    script = Script()
    script.open(delay=0.1)
    at = _past_quick_acks(script)
    script.inject("A", seq=at, ack=1, payload=bytes(1000))
    start = script.elapsed
    script.expect_nothing()
    script.sleep(0.1)
    script.expect("A", at=start + 0.025, ack=at + 1000)
    script.inject_batch(*(script.packet("A", seq=at + 1000 * n, ack=1, payload=bytes(1000)) for n in (1, 2)))
    script.expect("A", ack=at + 3000)


def test_a_batch_is_acknowledged_once():
    """N25, section 10.6."""
    script = Script()
    script.open()
    script.inject_batch(*(script.packet("A", seq=1 + 1000 * n, ack=1, payload=bytes(1000)) for n in range(40)))
    script.expect("A", ack=40_001)
    script.expect_nothing(for_seconds=1)


def test_a_short_tail_with_psh_is_acknowledged_at_once():
    """N25: somebody may wait for it with Nagle (field bug 11)."""
    script = Script()
    script.open()
    at = _past_quick_acks(script)
    script.inject("PA", seq=at, ack=1, payload=b"request")
    script.expect("A", ack=at + 7)


def test_disorder_is_acknowledged_at_once():
    """N25: a hole appears, grows, and closes."""
    script = Script()
    script.open()
    at = _past_quick_acks(script)
    script.inject("A", seq=at + 1000, ack=1, payload=bytes(1000))
    script.expect("A", ack=at, sack=((at + 1000, at + 2000),))
    script.inject("A", seq=at + 3000, ack=1, payload=bytes(1000))
    script.expect("A", ack=at, sack=((at + 3000, at + 4000), (at + 1000, at + 2000)))
    script.inject("A", seq=at, ack=1, payload=bytes(1000))
    script.expect("A", ack=at + 2000, sack=((at + 3000, at + 4000),))
    script.inject("A", seq=at + 2000, ack=1, payload=bytes(1000))
    script.expect("A", ack=at + 4000, sack=())


def test_a_peer_without_sack_gets_a_duplicate_for_each():
    """N25, RFC 5681 4.2: it counts them."""
    script = Script()
    script.open(sack=False)
    script.inject_batch(*(script.packet("A", seq=1 + 1000 * n, ack=1, payload=bytes(1000)) for n in (1, 2, 3, 4)))
    for _ in range(4):
        script.expect("A", ack=1)
    script.expect_nothing()


def test_an_acknowledgement_rides_on_octets():
    """N25."""
    script = Script()
    connection = script.open()
    packet = script.packet("PA", seq=1, ack=1, payload=b"ping")
    connection.write(b"pong", script.now)
    # Both happen before the stack is asked for packets.
    slab = Slab.of_packet(packet, 1 << 16)
    slab.length = slab.last_length = len(packet)
    script.stack.receive([slab], script.now)
    script.expect("PA", seq=1, ack=5, payload=b"pong")
    script.expect_nothing(for_seconds=0.1)


@pytest.mark.parametrize(("timestamps", "most"), [(False, 4), (True, 3)])
def test_as_many_blocks_as_fit(timestamps, most):
    """N17, RFC 2018 section 3: the latest first."""
    script = Script()
    script.open(timestamps=timestamps)
    for number in (1, 3, 5, 7, 9):
        script.inject("A", seq=1 + 100 * number, ack=1, payload=bytes(100))
    blocks = tuple((1 + 100 * number, 101 + 100 * number) for number in (9, 7, 5, 3))
    assert script.sent[-1].sack == blocks[:most]


def test_a_duplicate_is_reported():
    """N17, RFC 2883: once, and first."""
    script = Script()
    script.open()
    script.inject("A", seq=1, ack=1, payload=bytes(100))
    script.expect("A", ack=101)
    script.inject("A", seq=1, ack=1, payload=bytes(100))
    script.expect("A", ack=101, sack=((1, 101),))
    script.inject("A", seq=301, ack=1, payload=bytes(100))
    script.expect("A", ack=101, sack=((301, 401),))
    script.inject("A", seq=301, ack=1, payload=bytes(50))
    script.expect("A", ack=101, sack=((301, 351), (301, 401)))


def test_blocks_beside_octets_make_segments_shorter():
    """Section 4: the payload shrinks by the options that are sent."""
    script = Script()
    connection = script.open()
    script.inject("A", seq=101, ack=1, payload=bytes(100))
    connection.write(bytes(2000), script.now)
    script.expect("A", seq=1, ack=1, sack=((101, 201),))
    script.inject("A", seq=301, ack=1, payload=bytes(100))
    script.sent.clear()
    connection.write(bytes(2000), script.now)
    script.collect()
    assert all(sent.segment.header_length + len(sent.payload) <= 1400 for sent in script.sent)


def test_an_older_acknowledgement_does_not_bring_its_window_back():
    """RFC 9293 3.10.7.4: a segment that was overtaken on the way tells of a window that is no more."""
    script = Script()
    connection = script.open()
    connection.write(bytes(10), script.now)
    script.expect("PA", length=10)
    script.inject("PA", seq=6, ack=11, window=0, payload=b"later")
    assert connection.info().peer_window == 0
    script.inject("PA", seq=1, ack=1, window=512, payload=b"early")
    assert connection.info().peer_window == 0
    # The same number with an older acknowledgement is no news either; with the same acknowledgement it is.
    script.inject("A", seq=11, ack=11, window=16)
    assert connection.info().peer_window == 16 << 7
    script.inject("A", seq=11, ack=1, window=512)
    assert connection.info().peer_window == 16 << 7
    script.inject("A", seq=11, ack=11, window=32)
    assert connection.info().peer_window == 32 << 7

"""Opening (suite A 1 to 8): exact segments on a virtual clock."""

import errno
import random

import pytest

from wgpy.errors import DropReason
from wgpy.netstack.stack import IcmpError, Stack
from wgpy.netstack.tcp.states import State
from wgpy.testing.link import Link, join
from wgpy.testing.script import Script


@pytest.mark.parametrize(("version", "mss"), [(4, 1380), (6, 1360)])
def test_an_active_open_offers_all_options(version, mss):
    """N1."""
    script = Script(version=version)
    connection = script.connect()
    syn = script.expect("S", seq=0, length=0, mss=mss, scale=7, sack_permitted=True, window=0xFFFF)
    assert syn.segment.timestamps is not None
    assert syn.segment.timestamps[1] == 0
    script.sleep(0.05)
    script.inject("SA", seq=0, ack=1, mss=1460, scale=3, sack_permitted=True, timestamps=True)
    ack = script.expect("A", seq=1, ack=1, length=0)
    assert ack.segment.timestamps == (syn.segment.timestamps[0] + 50, script.clock())
    assert connection.state is State.ESTABLISHED
    assert connection.info().mss == mss - 12
    assert connection.info().srtt == pytest.approx(0.05)


def test_a_passive_open_answers_only_what_was_offered():
    """N2: a SYN without options."""
    script = Script()
    listener = script.listen()
    script.inject("S", seq=0, window=1000)
    answer = script.expect("SA", ack=1, scale=None, timestamps=None, sack_permitted=False, mss=1380)
    assert answer.segment.header_length == 24
    script.inject("A", seq=1, ack=1, window=1000)
    connection = listener.accept()
    assert connection is not None
    # RFC 9293 3.7.1: no MSS option means 536. No scale was offered, so none is applied to the window.
    assert (connection.info().mss, connection.info().peer_window) == (536, 1000)
    connection.write(bytes(5000), script.now)
    script.expect_run(1, 537, 536)
    assert not script.sent, "more than the window of 1000 octets holds in whole segments"


@pytest.mark.parametrize("mss", [0, 1, 47])
def test_a_tiny_mss_is_raised_to_48(mss):
    """N2."""
    script = Script()
    connection = script.accept(script.listen(), mss=mss)
    connection.write(bytes(100), script.now)
    script.expect_run(1, 101, 48)


def test_our_scale_is_not_applied_when_the_peer_offered_none():
    """N2, field bug 13: the window of the peer is taken as it stands, and ours is said as it is."""
    script = Script()
    connection = script.connect()
    script.expect("S", scale=7)
    script.inject("SA", seq=0, ack=1, window=500, mss=1380)
    script.expect("A", window=0xFFFF)
    assert connection.info().peer_window == 500
    script.inject("A", seq=1, ack=1, window=600)
    assert connection.info().peer_window == 600


def test_both_sides_open_at_once():
    """N3."""
    script = Script()
    connection = script.connect()
    script.expect("S", seq=0)
    script.inject("S", seq=0, mss=1380, scale=7, sack_permitted=True)
    script.expect("SA", seq=0, ack=1)
    assert connection.state is State.SYN_RECEIVED
    script.inject("SA", seq=0, ack=1, mss=1380, scale=7, sack_permitted=True)
    assert connection.state is State.ESTABLISHED
    connection.write(b"x", script.now)
    script.expect("PA", seq=1, ack=1, payload=b"x")


def test_a_syn_is_sent_again_at_1_2_4_seconds_and_then_given_up():
    """N4."""
    script = Script()
    connection = script.connect()
    script.expect("S", at=0)
    script.sleep(200)
    for moment in (1, 3, 7, 15, 31, 63):
        script.expect("S", at=moment, seq=0)
    assert not script.sent
    assert isinstance(connection.error, TimeoutError)
    assert connection.error.errno == errno.ETIMEDOUT
    assert script.stack.statistics().connections == 0


def test_a_reset_refuses_a_syn():
    """N5."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    script.inject("RA", seq=0, ack=1)
    assert isinstance(connection.error, ConnectionRefusedError)
    script.expect_nothing(for_seconds=10)
    with pytest.raises(ConnectionRefusedError):
        connection.read(10, script.now)


@pytest.mark.parametrize(("flags", "ack"), [("RA", 2), ("RA", 0), ("R", 0)])
def test_a_reset_with_a_wrong_or_no_acknowledgement_is_ignored(flags, ack):
    """N5."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    script.inject(flags, seq=0, ack=ack)
    assert connection.state is State.SYN_SENT
    assert script.stack.drops[DropReason.TCP_BLIND] == 1


def test_an_answer_with_a_wrong_acknowledgement_is_reset():
    """N5: half-open connections of an earlier life are cleared (RFC 9293 figure 9)."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    script.inject("A", seq=300, ack=91)
    script.expect("R", seq=91)
    assert connection.state is State.SYN_SENT
    # The first time, the SYN does not wait for its timer; whoever goes on so is not obeyed for ever.
    script.expect("S", seq=0)
    for _ in range(5):
        script.inject("A", seq=300, ack=91)
        script.expect("R", seq=91)
    script.expect_nothing(for_seconds=0.9)
    script.inject("SA", seq=0, ack=1, timestamps=True, mss=1380)
    script.expect("A", seq=1, ack=1)
    assert connection.sender.cubic.cwnd == 10 * connection.sender.payload, "nothing was lost"


def test_a_dial_that_meets_the_end_of_another_connection_takes_two_round_trips():
    """The peer's LAST_ACK, its TIME_WAIT or an established connection of an earlier life: all are ended by our RST."""
    for meets in ("last ack", "time wait", "established"):
        link = join(Link(delay=0.05))
        ours, theirs = (side.stack for side in link.sides)
        listener = theirs.listen_tcp(80)
        old = ours.connect_tcp(("10.0.0.2", 80), link.now, local=("10.0.0.1", 40000))
        assert link.run_until(lambda old=old: old.is_established)
        link.run(0.1)
        accepted = listener.accept()
        if meets == "time wait":
            accepted.shutdown_write(link.now)
            link.run(0.2)
            old.shutdown_write(link.now)
            link.run(0.2)
            assert theirs.statistics().time_wait == 1
        elif meets == "last ack":
            old.shutdown_write(link.now)
            link.run(0.2)
        # Another process in our place, whose clock knows nothing of the first one's.
        link.sides[0].stack = Stack(addresses=["10.0.0.1/32"], mtu=1420, random=random.Random(99).randbytes)
        if meets == "last ack":
            accepted.shutdown_write(link.now)
        new = link.sides[0].stack.connect_tcp(("10.0.0.2", 80), link.now, local=("10.0.0.1", 40000))
        before = link.now
        assert link.run_until(lambda new=new: new.is_established), meets
        assert link.now - before < 0.3, meets


def test_a_process_that_is_started_again_counts_on():
    """RFC 6528, RFC 7323 7.1, RFC 6191: the peer's TIME_WAIT gives way to its SYN, whatever it drew at random."""
    for seed in range(8):
        link = Link(delay=0.05, seed=seed)
        link = join(link, secret=bytes(range(32)), epoch=1_750_000_000.0)
        theirs = link.sides[1].stack
        listener = theirs.listen_tcp(80)
        old = link.sides[0].stack.connect_tcp(("10.0.0.2", 80), link.now, local=("10.0.0.1", 40000))
        assert link.run_until(lambda old=old: old.is_established)
        link.run(0.1)
        accepted = listener.accept()
        accepted.shutdown_write(link.now)
        link.run(0.2)
        old.shutdown_write(link.now)
        link.run(0.2)
        assert theirs.statistics().time_wait == 1
        # The next process: its own clock began anew, and the wall clock went on.
        stack = Stack(
            addresses=["10.0.0.1/32"],
            mtu=1420,
            random=link.random.randbytes,
            secret=bytes(range(32)),
            epoch=1_750_000_000.0,
        )
        link.sides[0].stack = stack
        new = stack.connect_tcp(("10.0.0.2", 80), link.now, local=("10.0.0.1", 40000))
        resets = theirs.statistics().resets_sent, stack.statistics().resets_sent
        before = link.now
        assert link.run_until(lambda new=new: new.is_established)
        assert link.now - before == pytest.approx(0.1), "one round trip"
        assert (theirs.statistics().resets_sent, stack.statistics().resets_sent) == resets


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (IcmpError.PORT_UNREACHABLE, errno.ECONNREFUSED),
        (IcmpError.PROTOCOL_UNREACHABLE, errno.ENOPROTOOPT),
        (IcmpError.PROHIBITED, errno.EHOSTUNREACH),
        (IcmpError.HOST_UNREACHABLE, errno.EHOSTUNREACH),
        (IcmpError.NET_UNREACHABLE, errno.ENETUNREACH),
    ],
)
def test_an_icmp_error_ends_an_attempt(kind, expected):
    """N6: hard or soft, as the kernel does (RFC 5461)."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    script.stack.tcp_icmp_error(kind, (script.local, script.port), (script.remote, 80), script.our_iss, script.now)
    assert connection.error is not None
    assert connection.error.errno == expected


def test_an_icmp_error_that_quotes_nothing_in_flight_is_ignored():
    """N6, RFC 5927 section 4.1."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    where = (script.local, script.port), (script.remote, 80), script.our_iss + 1
    script.stack.tcp_icmp_error(IcmpError.PORT_UNREACHABLE, *where, script.now)
    assert connection.error is None
    assert script.stack.drops[DropReason.ICMP_UNRELATED] == 1


def test_a_hard_icmp_error_does_not_end_an_established_connection():
    """Section 9, RFC 5927 section 5."""
    script = Script()
    connection = script.open()
    connection.write(b"x", script.now)
    script.expect("PA")
    where = (script.local, script.port), (script.remote, 80), script.our_iss + 1
    script.stack.tcp_icmp_error(IcmpError.PORT_UNREACHABLE, *where, script.now)
    assert connection.error is None
    assert connection.info().soft_error == errno.ECONNREFUSED


@pytest.mark.parametrize("flags", ["SF", "F", "P", "FPU", ""])
def test_a_listener_is_silent_where_nothing_opens_and_nothing_is_acknowledged(flags):
    """RFC 9293 3.10.7.2, and as Linux; a port without a listener answers with a reset."""
    script = Script()
    listener = script.listen()
    script.inject(flags, seq=5)
    script.expect_nothing()
    assert listener.accept() is None
    assert script.stack.statistics().connections == 0


def test_a_full_accept_queue_drops_syns_without_a_word():
    """N7."""
    script = Script()
    listener = script.listen(backlog=1)
    script.inject("S", seq=0)
    script.expect("SA")
    script.inject("A", seq=1, ack=1)
    script.peer_port = 40001
    script.inject("S", seq=0)
    script.expect_nothing(for_seconds=5)
    assert script.stack.drops[DropReason.TCP_ACCEPT_QUEUE_FULL] == 1
    assert listener.accept() is not None
    script.inject("S", seq=0)
    script.expect("SA")


def test_a_handshake_waits_while_the_accept_queue_is_full():
    """N7: two half-open connections, room for one; the second is accepted when its last ACK comes again."""
    script = Script()
    listener = script.listen(backlog=1)
    numbers = {}
    for port in (40000, 40001):
        script.peer_port = port
        script.inject("S", seq=0)
        script.expect("SA")
        numbers[port] = script.our_iss
    for port, number in numbers.items():
        script.peer_port, script.our_iss = port, number
        script.inject("A", seq=1, ack=1)
    assert listener.accept() is not None
    assert listener.accept() is None
    script.sleep(1.1)
    script.expect("SA", at=1.0)
    script.inject("A", seq=1, ack=1)
    assert listener.accept() is not None


def test_a_closed_listener_resets_what_waits():
    """N7."""
    script = Script()
    listener = script.listen()
    script.inject("S", seq=0)
    script.expect("SA")
    script.inject("A", seq=1, ack=1)
    listener.close(script.now)
    script.expect("RA", seq=1)
    assert script.stack.statistics().connections == 0
    script.peer_port = 40001
    script.inject("S", seq=0)
    script.expect("RA", ack=1)


def test_a_syn_for_nobody_is_reset():
    """N7, RFC 9293 3.10.7.1."""
    script = Script()
    script.port, script.peer_port = 81, 40000
    script.inject("S", seq=0)
    reset = script.expect("RA", ack=1)
    assert reset.segment.sequence == 0
    script.inject("A", seq=5, ack=77)
    assert script.expect("R").segment.sequence == 77
    script.inject("R", seq=5)
    script.expect_nothing()


def test_a_lost_syn_ack_is_sent_again_and_when_the_syn_comes_again():
    """N8."""
    script = Script()
    listener = script.listen()
    script.inject("S", seq=0, mss=1380)
    script.expect("SA", at=0)
    script.sleep(1.5)
    script.expect("SA", at=1.0)
    script.inject("S", seq=0, mss=1380)
    script.expect("SA")
    script.inject("A", seq=1, ack=1)
    assert listener.accept() is not None


def test_octets_on_the_third_ack_and_before_accept():
    """N8."""
    script = Script()
    listener = script.listen()
    script.inject("S", seq=0, mss=1380, scale=7)
    script.expect("SA")
    script.inject("PA", seq=1, ack=1, payload=b"hello ")
    script.expect("A", ack=7)
    script.inject("PA", seq=7, ack=1, payload=b"world")
    script.expect("A", ack=12)
    connection = listener.accept()
    assert connection is not None
    assert connection.read(100, script.now) == b"hello world"


def test_a_half_open_connection_is_forgotten_at_last():
    """N8: five retransmissions of the SYN-ACK."""
    script = Script()
    script.listen()
    script.inject("S", seq=0)
    script.sleep(100)
    assert [round(sent.time) for sent in script.sent] == [0, 1, 3, 7, 15, 31]
    assert script.stack.statistics().connections == 0


# --- SYN cookies -----------------------------------------------------------------------------------------------------


def _flood(script, count=256):
    for port in range(1000, 1000 + count):
        script.peer_port = port
        script.inject("S", seq=0)
    script.sent.clear()


def test_a_flood_of_syns_takes_bounded_memory():
    """D, RFC 4987."""
    script = Script()
    listener = script.listen()
    _flood(script, 300)
    assert len(listener.half_open) == 256
    assert script.stack.statistics().half_open == 256
    assert script.stack.drops[DropReason.TCP_SYN_QUEUE_FULL] == 44


@pytest.mark.parametrize(("timestamps", "scale", "sack"), [(True, 7, True), (True, None, False), (False, 7, True)])
def test_a_handshake_by_cookie(timestamps, scale, sack):
    """RFC 4987 3.6: nothing is remembered, and with timestamps nothing is lost."""
    script = Script()
    listener = script.listen()
    _flood(script)
    script.peer_port = 40000
    script.inject("S", seq=0, mss=1400, scale=scale, sack_permitted=sack, timestamps=timestamps)
    answer = script.expect("SA", ack=1, mss=1380)
    assert answer.segment.sack_permitted is (sack and timestamps)
    assert (answer.segment.scale is not None) is (scale is not None and timestamps)
    assert script.stack.statistics().connections == 256
    script.sleep(0.02)
    script.inject("PA", seq=1, ack=1, window=1000, payload=b"hello")
    script.expect("A", seq=1, ack=6)
    connection = listener.accept()
    assert connection is not None
    assert connection.read(10, script.now) == b"hello"
    assert connection.info().mss == 1380 - (12 if timestamps else 0)
    assert connection.info().peer_window == (1000 << 7 if timestamps and scale else 1000)
    connection.write(b"world", script.now)
    script.expect("PA", seq=1, ack=6, payload=b"world")


@pytest.mark.parametrize(("ack", "after"), [(2, 0.0), (1 << 20, 0.0), (1, 300.0)])
def test_a_forged_or_old_cookie_is_reset(ack, after):
    script = Script()
    listener = script.listen()
    _flood(script)
    script.peer_port = 40000
    script.inject("S", seq=0)
    script.expect("SA")
    script.sleep(after)
    script.sent.clear()
    script.inject("A", seq=1, ack=ack)
    script.expect("R")
    assert listener.accept() is None


@pytest.mark.parametrize(("after", "is_taken"), [(0.0, True), (127.0, True), (193.0, False), (1000.0, False)])
def test_a_cookie_is_good_for_two_minutes(after, is_taken):
    """And not longer because cookies are still being handed out to others."""
    script = Script()
    listener = script.listen()
    script.now -= script.now % 64  # cookies know whole minutes (of 64 seconds)
    _flood(script)
    script.peer_port = 40000
    script.inject("S", seq=0)
    cookie = script.expect("SA").segment.sequence
    script.sleep(after)
    _flood(script)
    script.peer_port = 40001
    script.inject("S", seq=0)
    script.expect("SA")
    script.peer_port, script.our_iss = 40000, cookie
    script.inject("A", seq=1, ack=1)
    assert (listener.accept() is not None) is is_taken


@pytest.mark.parametrize(
    ("local", "remote", "expected"),
    [
        (("10.0.0.9", 0), "10.0.0.2", errno.EADDRNOTAVAIL),
        (None, "fd00::2", errno.ENETUNREACH),
    ],
)
def test_an_impossible_connect_fails_at_once(local, remote, expected):
    script = Script()
    with pytest.raises(OSError, match=r".") as problem:
        script.stack.connect_tcp((remote, 80), script.now, local=local)
    assert problem.value.errno == expected
    script.expect_nothing()


def test_a_pair_of_addresses_and_ports_is_used_once():
    script = Script()
    script.stack.connect_tcp(("10.0.0.2", 80), script.now, local=("10.0.0.1", 5000))
    with pytest.raises(OSError, match="in use") as problem:
        script.stack.connect_tcp(("10.0.0.2", 80), script.now, local=("10.0.0.1", 5000))
    assert problem.value.errno == errno.EADDRINUSE
    script.stack.connect_tcp(("10.0.0.2", 81), script.now, local=("10.0.0.1", 5000))


def test_a_port_has_one_listener_for_each_address_and_one_for_all():
    script = Script()
    script.stack.listen_tcp(80)
    script.stack.listen_tcp(80, host="10.0.0.1")
    with pytest.raises(OSError, match="in use"):
        script.stack.listen_tcp(80)
    with pytest.raises(OSError, match="assign"):
        script.stack.listen_tcp(80, host="10.0.0.7")

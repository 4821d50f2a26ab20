"""Strange, old and hostile segments (suite A 26 to 32): exact answers on a virtual clock."""

import errno
import math

import pytest

from wgpy.errors import BadPacket, DropReason
from wgpy.netstack.stack import IcmpError
from wgpy.netstack.tcp.keepalive import Keepalive
from wgpy.netstack.tcp.states import State
from wgpy.testing.link import slabs_of
from wgpy.testing.script import Script
from wgpy.wire import tcp

MSS = 1380


# --- timestamps ------------------------------------------------------------------------------------------------------


def test_an_old_duplicate_is_refused_by_its_timestamp():
    """N26: PAWS."""
    script = Script()
    connection = script.open(timestamps=True)
    script.sleep(1)
    script.inject("PA", seq=1, ack=1, payload=b"new")
    script.expect("A", ack=4)
    script.inject("PA", seq=4, ack=1, payload=b"old", timestamps=(script.clock() - 500, 0))
    script.expect("A", ack=4)
    assert script.stack.drops[DropReason.TCP_OLD_TIMESTAMP] == 1
    assert connection.read(10, script.now) == b"new"


def test_timestamps_wrap():
    """N26."""
    script = Script()
    connection = script.connect()
    script.expect("S")
    script.inject("SA", seq=0, ack=1, mss=1380, timestamps=(0xFFFFFFF0, 0))
    script.expect("A", timestamps=(connection.clock(script.now), 0xFFFFFFF0))
    script.inject("PA", seq=1, ack=1, payload=b"x", timestamps=(0x10, 0))
    script.expect("A", ack=2, timestamps=(connection.clock(script.now), 0x10))


def test_a_segment_without_its_timestamp_is_taken():
    """N26: the kernel takes it, against RFC 7323 3.2, since middleboxes strip options."""
    script = Script()
    connection = script.open(timestamps=True)
    connection.write(b"question", script.now)
    script.expect("PA", payload=b"question")
    script.inject("PA", seq=1, ack=9, payload=b"answer", timestamps=False)
    script.expect("A", ack=7)
    assert connection.read(10, script.now) == b"answer"
    assert connection.sender.una == connection.sender.nxt
    # What has one is looked at as before.
    script.sleep(1)
    script.inject("PA", seq=7, ack=9, payload=b"new")
    script.inject("PA", seq=10, ack=9, payload=b"old", timestamps=(1, 0))
    assert connection.read(10, script.now) == b"new"
    script.inject("FA", seq=10, ack=9, timestamps=False)
    assert connection.at_eof


def test_the_echo_is_that_of_the_earliest_segment_not_acknowledged():
    """RFC 7323 4.3: a segment ahead of a hole does not count."""
    script = Script()
    connection = script.open(timestamps=True)
    first = script.clock()
    script.sleep(0.1)
    script.inject("A", seq=101, ack=1, payload=bytes(100))
    script.expect("A", ack=1, timestamps=(connection.clock(script.now), first))
    script.sleep(0.1)
    script.inject("A", seq=1, ack=1, payload=bytes(100))
    script.expect("A", ack=201, timestamps=(connection.clock(script.now), script.clock()))


# --- wrapping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_peers_numbers_wrap(before):
    """N27: in the SYN, in octets, in SACK blocks and in the FIN."""
    script = Script(iss=(1 << 32) - before - 1)
    connection = script.open()
    script.inject("PA", seq=4, ack=1, payload=b"def")
    script.expect("A", ack=1, sack=((4, 7),))
    script.inject("PA", seq=1, ack=1, payload=b"abc")
    script.expect("A", ack=7)
    script.inject("FA", seq=7, ack=1)
    script.expect("A", ack=8)
    assert connection.read(10, script.now) == b"abcdef"
    assert connection.at_eof


@pytest.mark.parametrize("before", [0, 1, MSS, 3 * MSS])
def test_our_numbers_wrap(before, monkeypatch):
    """N27, field bug 15."""
    monkeypatch.setattr("wgpy.netstack.ports.Secret.initial_sequence", lambda *_: (0xFFFFFFFF - before) & 0xFFFFFFFF)
    script = Script()
    connection = script.open()
    connection.write(bytes(6 * MSS), script.now)
    script.expect_run(1, 1 + 6 * MSS, MSS)
    script.inject("A", seq=1, ack=1, sack=((1 + MSS, 1 + 4 * MSS),))
    script.expect("A", seq=1, length=MSS)
    script.inject("A", seq=1, ack=1 + 6 * MSS)
    connection.shutdown_write(script.now)
    script.expect("FPA", seq=1 + 6 * MSS)
    script.inject("A", seq=1, ack=2 + 6 * MSS)
    assert connection.state is State.FIN_WAIT_2


# --- blind attackers -------------------------------------------------------------------------------------------------


def test_an_exact_reset_ends_the_connection():
    """N28."""
    script = Script()
    connection = script.open()
    script.inject("PA", seq=1, ack=1, payload=b"read this first")
    script.expect("A")
    script.inject("R", seq=16)
    assert connection.is_closed
    assert connection.read(100, script.now) == b"read this first"
    with pytest.raises(ConnectionResetError):
        connection.read(100, script.now)
    script.expect_nothing(for_seconds=100)


def test_a_reset_in_the_window_is_challenged_and_one_outside_ignored():
    """N28, RFC 5961 section 3."""
    script = Script()
    connection = script.open()
    script.inject("R", seq=100)
    script.expect("A", seq=1, ack=1)
    script.inject("R", seq=-5)
    script.inject("R", seq=1 << 20)
    script.expect_nothing()
    assert connection.is_established
    assert script.stack.drops[DropReason.TCP_BLIND] == 3


@pytest.mark.parametrize("seq", [1, 1000, -1000])
def test_a_syn_is_challenged(seq):
    """N28, RFC 5961 section 4."""
    script = Script()
    connection = script.open()
    script.inject("S", seq=seq)
    script.expect("A", seq=1, ack=1)
    assert connection.is_established


@pytest.mark.parametrize("ack", [2, 5000, -200_000])
def test_an_impossible_acknowledgement_is_challenged_and_its_octets_dropped(ack):
    """N28, RFC 5961 section 5."""
    script = Script()
    connection = script.open()
    script.inject("PA", seq=1, ack=ack, payload=b"evil")
    script.expect("A", seq=1, ack=1)
    assert connection.info().receive_buffered == 0


def test_challenges_are_limited():
    """N28: two a second, counted for each connection."""
    script = Script()
    script.open()
    for _ in range(20):
        script.inject("R", seq=100)
    script.expect("A")
    script.expect("A")
    script.expect_nothing(for_seconds=1)
    script.inject("R", seq=100)
    script.expect("A")


def test_resets_for_strangers_are_limited():
    script = Script()
    script.port = 81
    for number in range(300):
        script.peer_port = 1000 + number
        script.inject("S", seq=0)
    assert len(script.sent) == 100
    script.sent.clear()
    script.sleep(1)
    script.inject("S", seq=0)
    script.expect("RA")


# --- path MTU --------------------------------------------------------------------------------------------------------


def _too_big(script, mtu, seq=1):
    where = (script.local, script.port), (script.remote, 80), (script.our_iss + seq) & 0xFFFFFFFF
    script.stack.tcp_icmp_error(IcmpError.TOO_BIG, *where, script.now, mtu=mtu)


def test_too_big_lowers_the_mss_and_sends_again_at_once():
    """N29."""
    script = Script()
    connection = script.open()
    connection.write(bytes(3 * MSS), script.now)
    script.expect_run(1, 1 + 3 * MSS, MSS)
    _too_big(script, 1300)
    script.expect_run(1, 1 + 3 * MSS, 1260)
    assert connection.info().mss == 1260
    assert connection.info().ssthresh is None, "a route says nothing about congestion"


@pytest.mark.parametrize(("version", "said", "mss"), [(4, 68, 552 - 40), (4, 0, 552 - 40), (6, 1000, 1280 - 60)])
def test_a_path_is_not_believed_to_be_narrower_than_paths_are(version, said, mss):
    """N29, RFC 5927 section 7."""
    script = Script(version=version)
    connection = script.open(mss=1360)
    connection.write(bytes(5000), script.now)
    script.collect()
    script.sent.clear()
    _too_big(script, said)
    script.collect()
    assert connection.info().mss == mss


@pytest.mark.parametrize("seq", [0, 1 + 3 * MSS, 1 << 20])
def test_a_quote_of_nothing_in_flight_changes_nothing(seq):
    """N29, RFC 5927 section 4."""
    script = Script()
    connection = script.open()
    connection.write(bytes(3 * MSS), script.now)
    script.expect_run(1, 1 + 3 * MSS, MSS)
    _too_big(script, 1300, seq)
    script.expect_nothing()
    assert connection.info().mss == MSS
    assert script.stack.drops[DropReason.ICMP_UNRELATED] == 1


def test_too_big_of_a_greater_mtu_changes_nothing():
    """N29."""
    script = Script()
    connection = script.open()
    connection.write(bytes(3 * MSS), script.now)
    script.expect_run(1, 1 + 3 * MSS, MSS)
    _too_big(script, 1500)
    script.expect_nothing()
    assert connection.info().mss == MSS


def test_the_mtu_of_the_tunnel_is_lowered():
    """What leaves afterwards fits, also what was sent before and is lost."""
    script = Script()
    connection = script.open()
    connection.write(bytes(12 * MSS), script.now)
    script.expect_run(1, 1 + 10 * MSS, MSS)
    script.stack.set_mtu(1280)
    script.inject("A", seq=1, ack=1, sack=((1 + MSS, 1 + 10 * MSS),))
    script.collect()
    assert script.sent
    assert all(sent.segment.header_length + len(sent.payload) + 20 <= 1280 for sent in script.sent)


# --- keepalive -------------------------------------------------------------------------------------------------------


def test_the_keepalive_schedule():
    """N30: after 60 s, every 15 s, four times."""
    script = Script()
    connection = script.open()
    connection.set_keepalive(Keepalive(), script.now)
    start = script.elapsed
    script.sleep(200)
    for moment in (60, 75, 90, 105):
        script.expect("A", at=start + moment, seq=0, ack=1, length=0)
    script.expect("RA", at=start + 120)
    assert isinstance(connection.error, TimeoutError)


def test_an_answer_starts_the_keepalive_over():
    """N30."""
    script = Script()
    connection = script.open()
    connection.set_keepalive(Keepalive(idle=10, interval=5, probes=2), script.now)
    for _ in range(5):
        start = script.elapsed
        script.sleep(10.5)
        script.expect("A", at=start + 10, seq=0)
        script.inject("A", seq=1, ack=1)
    assert connection.is_established
    connection.set_keepalive(None, script.now)
    script.expect_nothing(for_seconds=1000)


def test_what_is_in_flight_asks_in_place_of_a_probe():
    """N30: and a peer that says nothing to it is as gone as one that answers no probe."""
    script = Script()
    connection = script.open()
    connection.set_keepalive(Keepalive(idle=5, interval=3, probes=3), script.now)
    start = script.elapsed
    script.sleep(2)
    connection.write(b"anybody?", script.now)
    script.sleep(20)
    assert isinstance(connection.error, TimeoutError)
    assert all(len(sent.payload) == 8 for sent in script.sent[:-1]), "no probe beside what is in flight"
    assert script.sent[-1].time == pytest.approx(start + 14, abs=0.001)


def test_a_closed_window_that_is_confirmed_is_no_dead_peer():
    script = Script()
    connection = script.open()
    connection.set_keepalive(Keepalive(idle=5, interval=3, probes=3), script.now)
    script.inject("A", seq=1, ack=1, window=0)
    connection.write(b"when you are ready", script.now)
    for _ in range(20):
        script.sleep(3)
        script.collect()
        script.inject("A", seq=1, ack=1, window=0)
    assert connection.is_established


@pytest.mark.parametrize(
    "wrong",
    [{"idle": 0.5}, {"idle": math.nan}, {"interval": 0}, {"interval": math.inf}, {"probes": 0}, {"probes": 1.5}],
)
def test_a_keepalive_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Keepalive(**wrong)


def test_a_keepalive_of_the_peer_is_answered():
    script = Script()
    script.open()
    script.inject("A", seq=0, ack=1)
    script.expect("A", seq=1, ack=1)


# --- ECN -------------------------------------------------------------------------------------------------------------


def test_a_mark_is_echoed_until_the_peer_says_it_slowed_down():
    """N31, RFC 3168 6.1."""
    script = Script(uses_ecn=True)
    listener = script.listen()
    script.inject("SEW", seq=0, mss=1380)
    script.expect("SAE", ack=1)
    script.inject("A", seq=1, ack=1)
    listener.accept()
    script.inject("A", seq=1, ack=1, payload=bytes(1000), traffic_class=3)
    script.expect("AE", ack=1001)
    script.inject("A", seq=1001, ack=1, payload=bytes(1000), traffic_class=2)
    script.expect("AE", ack=2001)
    script.inject("AW", seq=2001, ack=1, payload=bytes(1000), traffic_class=2)
    script.expect("A", ack=3001)


def test_an_echoed_mark_slows_us_down_once_for_each_window():
    """N31."""
    script = Script(uses_ecn=True)
    connection = script.connect()
    script.expect("SEW")
    script.inject("SAE", seq=0, ack=1, mss=1380, scale=7, sack_permitted=True)
    script.expect("A")
    connection.write(bytes(30 * MSS), script.now)
    run = script.expect_run(1, 1 + 10 * MSS, MSS)
    assert {sent.traffic_class for sent in run} == {2}
    script.sleep(0.005)
    script.inject("AE", seq=1, ack=1 + MSS)
    script.inject("AE", seq=1, ack=1 + 4 * MSS)
    assert connection.info().ssthresh == int(10 * MSS * 0.7)
    script.collect()
    assert [("W" in sent.flags) for sent in script.sent] == [True] + [False] * (len(script.sent) - 1)
    assert connection.info().retransmits == 0


def test_without_ecn_nothing_is_marked():
    """N31."""
    script = Script()
    connection = script.open()
    connection.write(b"x", script.now)
    assert script.expect("PA").traffic_class == 0


# --- broken headers --------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_dropped():
    """N32."""
    script = Script()
    connection = script.open()
    packet = bytearray(script.packet("PA", seq=1, ack=1, payload=b"x"))
    packet[-1] ^= 1
    script.inject_packet(bytes(packet))
    script.expect_nothing()
    assert connection.info().receive_buffered == 0
    assert script.stack.drops[DropReason.TRANSPORT_CHECKSUM] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (b"\x02\x00\x05\x64", DropReason.TCP_OPTIONS),
        (b"\x02\x01\x05\x64", DropReason.TCP_OPTIONS),
        (b"\x01\x01\x01\x02", DropReason.TCP_OPTIONS),
        (b"\x08\x0a\x00\x00", DropReason.TCP_OPTIONS),
        (b"\xfe\x09\x00\x00", DropReason.TCP_OPTIONS),
    ],
)
def test_an_option_of_impossible_length_is_dropped(options, reason):
    """N32."""
    script = Script()
    script.listen()
    script.inject("S", seq=0, options=options)
    script.expect_nothing()
    assert script.stack.drops[reason] == 1


def test_options_at_odd_offsets_are_found():
    """N32."""
    script = Script()
    script.listen()
    script.inject("S", seq=0, options=b"\x01\x02\x04\x02\x00\x01\x03\x03\x05\xfd\x03\x00\x04\x02\x00\x00")
    script.expect("SA", scale=7, sack_permitted=True)
    connection = next(iter(script.stack._tcp.flows.values()))
    assert (connection.sender.mss, connection.sender.scale) == (512, 5)


@pytest.mark.parametrize("words", [0, 4, 15])
def test_a_header_that_is_not_there_is_dropped(words):
    """N32: the length says less than a header, or more than there is."""
    header = bytearray(tcp.HEADER.pack(1, 2, 3, 4, words << 4, tcp.ACK, 0, 0, 0))
    with pytest.raises(BadPacket) as problem:
        tcp.decode_untrusted(bytes(header), 0, 20)
    assert problem.value.reason is DropReason.TRANSPORT_HEADER
    with pytest.raises(BadPacket):
        tcp.decode_untrusted(bytes(header[:19]), 0, 19)


def test_a_scale_above_fourteen_is_taken_for_fourteen():
    """RFC 7323 2.3."""
    script = Script()
    connection = script.open(scale=15)
    script.inject("A", seq=1, ack=1, window=1)
    assert connection.info().peer_window == 1 << 14


def test_an_urgent_pointer_means_nothing():
    """Section 4: the octets are octets."""
    script = Script()
    connection = script.open()
    script.inject("PAU", seq=1, ack=1, payload=b"urgent")
    script.expect("A", ack=7)
    assert connection.read(10, script.now) == b"urgent"


@pytest.mark.parametrize("source", ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "10.0.0.1"])
def test_sources_that_no_host_has(source):
    """N36."""
    import ipaddress

    script = Script()
    script.listen()
    script.remote = ipaddress.ip_address(source).packed
    script.inject("S", seq=0)
    script.expect_nothing()
    assert script.stack.drops[DropReason.MARTIAN_SOURCE] == 1


@pytest.mark.parametrize("source", ["10.0.0.1", "127.0.0.1", "224.0.0.1"])
def test_many_rows_from_a_source_that_no_host_has(source):
    """N36: what comes as one slab is looked at as what comes alone."""
    import ipaddress

    from tests.netstack.hosts import ROWS

    for rows in ROWS:
        script = Script(rows=rows)
        script.listen()
        script.remote = ipaddress.ip_address(source).packed
        packets = [script.packet("A", seq=1 + 1000 * row, ack=1, payload=bytes(1000)) for row in range(4)]
        [slab] = slabs_of(packets)
        assert slab.count == 4
        script.stack.receive([slab], script.now)
        script.expect_nothing()
        assert script.stack.drops[DropReason.MARTIAN_SOURCE] == 4


def test_an_ipv4_address_in_ipv6_dress_is_no_source():
    script = Script(version=6)
    script.listen()
    script.remote = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 2))
    script.inject("S", seq=0)
    script.expect_nothing()
    assert script.stack.drops[DropReason.MARTIAN_SOURCE] == 1


def test_a_foreign_destination_is_dropped():
    """N36."""
    script = Script()
    script.listen()
    script.local = bytes((10, 0, 0, 77))
    script.inject("S", seq=0)
    script.expect_nothing()
    assert script.stack.drops[DropReason.FOREIGN_DESTINATION] == 1


def test_everything_fails_when_the_stack_is_closed():
    script = Script()
    connection = script.open()
    listener = script.listen()
    script.stack.close()
    assert connection.error is not None
    assert connection.error.errno == errno.ECONNABORTED
    assert listener.is_closed
    script.expect_nothing(for_seconds=100)
    assert script.stack.next_deadline() is None

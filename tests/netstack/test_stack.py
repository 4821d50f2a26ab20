"""The stack as a whole: budgets, turns, deadlines, any-address accept, idle connections."""

import pytest

from wgpy.dataplane.slab import Slab
from wgpy.errors import DropReason
from wgpy.netstack.stack import Stack
from wgpy.netstack.tcp.host import Fallback
from wgpy.testing.link import Link, join
from wgpy.testing.script import Script
from wgpy.wire import ip, tcp


def _rows(slabs):
    return sum(slab.count for slab in slabs)


def _many(script, count, octets, first=1000):
    """Established connections, each with so many octets to send and a window for them."""
    connections = [_open(script, first + number) for number in range(count)]
    for connection in connections:
        connection.sender.cubic.cwnd = 1 << 20
        connection.write(bytes(octets), script.now)
    return connections


def _open(script, port):
    """An established connection, whatever else the stack sends."""
    connection = script.stack.connect_tcp(("10.0.0.2", port), script.now)
    script.port, script.peer_port = connection.local[1], port
    script.collect()
    script.our_iss = connection.sender.iss
    script.inject("SA", seq=0, ack=1, mss=1380, scale=7, window=0xFFFF)
    script.sent.clear()
    assert connection.is_established
    return connection


def test_emit_keeps_to_its_budget_and_goes_on_where_it_stopped():
    script = Script()
    (connection,) = _many(script, 1, 40_000)
    counts = []
    while slabs := script.stack.emit(script.now, 7):
        counts.append(_rows(slabs))
    assert counts == [7, 7, 7, 7, 1]
    assert connection.info().flight == 40_000
    assert not script.stack.has_output()


def test_no_budget_means_nothing_is_sent_and_nothing_times_out():
    """The border with WireGuard: without a session data stays where it is."""
    script = Script()
    (connection,) = _many(script, 1, 40_000)
    assert script.stack.emit(script.now, 0) == []
    assert connection.info().flight == 0
    assert script.stack.has_output()
    assert script.stack.next_deadline() is None


def test_connections_take_turns():
    """Deficit round robin: with room for two slabs of each, all four have sent the same."""
    script = Script()
    connections = _many(script, 4, 65_000)
    for _ in range(4):
        script.stack.emit(script.now, 45)
    flights = [connection.info().flight for connection in connections]
    assert min(flights) >= 0.8 * max(flights) > 0


def test_a_small_flow_does_not_wait_behind_large_ones():
    script = Script()
    _many(script, 3, 65_000)
    small = _open_beside(script, 4000)
    small.write(bytes(100), script.now)
    sent = 0
    while not small.info().flight:
        sent += _rows(script.stack.emit(script.now, 16))
    assert sent <= 4 * 64


def test_acknowledgements_and_resets_go_before_octets():
    script = Script()
    _many(script, 2, 65_000)
    third = _open_beside(script, 3000)
    packets = [script.packet("PA", seq=1, ack=1, payload=b"x")]
    script.port = 9
    packets.append(script.packet("S", seq=0))
    script.stack.receive([_slab(packet) for packet in packets], script.now)
    slabs = script.stack.emit(script.now, 16)
    flags = [tcp.decode_untrusted(bytes(row), 20, len(row)).flags for slab in slabs for row in slab]
    # The stranger's RST, the bare acknowledgement, then octets.
    assert flags[:2] == [tcp.RST | tcp.ACK, tcp.ACK]
    assert ip.true_length_untrusted(list(slabs[0])[1]) == 40
    assert len(flags) == 16
    assert third.info().flight == 0


def _open_beside(script, port):
    """Like `_open`, without letting the others send."""
    connection = script.stack.connect_tcp(("10.0.0.2", port), script.now)
    script.stack.emit(script.now, 1)
    script.port, script.peer_port, script.our_iss = connection.local[1], port, connection.sender.iss
    script.stack.receive([_slab(script.packet("SA", seq=0, ack=1, mss=1380, scale=7))], script.now)
    script.stack.emit(script.now, 1)
    assert connection.is_established
    return connection


def _slab(packet):
    slab = Slab.of_packet(packet, 1 << 16)
    slab.length = slab.last_length = len(packet)
    return slab


def test_packets_of_other_protocols_take_turns_with_connections():
    script = Script()
    (connection,) = _many(script, 1, 65_000)
    packet = ip.encode_header(script.local, script.remote, ip.UDP, 1000) + bytes(1000)
    while script.stack.queue_packet(packet, "flow"):
        pass
    assert script.stack.queue_room("flow") < 1020
    udp = 0
    for _ in range(4):
        for slab in script.stack.emit(script.now, 32):
            udp += sum(row[9] == ip.UDP for row in slab)
    assert 0 < udp < 128
    assert connection.info().flight > 0


def test_the_control_queue_is_bounded():
    stack = Stack(addresses=["10.0.0.1/32"], mtu=1420, random=bytes)
    packet = ip.encode_header(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), ip.ICMP, 8) + bytes(8)
    assert all(stack.queue_control(packet) for _ in range(1024))
    assert not stack.queue_control(packet)
    assert stack.drops[DropReason.CONTROL_QUEUE_FULL] == 1


def test_idle_connections_wait_for_nothing():
    """Section 10.7: no wake-ups."""
    script = Script()
    connections = _many(script, 50, 0)
    script.expect_nothing(for_seconds=10_000)
    assert script.stack.next_deadline() is None
    assert all(connection.is_established for connection in connections)


def test_a_clock_that_jumps_makes_everything_due_once():
    script = Script()
    connections = _many(script, 10, 1000)
    script.collect()
    script.sent.clear()
    script.now += 3600
    script.stack.handle_timer(script.now)
    script.collect()
    assert len(script.sent) == 10
    assert all(connection.error is None for connection in connections)


@pytest.mark.parametrize("answer", Fallback)
def test_any_address_can_be_accepted(answer):
    asked = []
    script = Script()

    def decide(local, remote):
        asked.append((local, remote))
        return answer

    listener = script.stack.set_fallback_tcp_handler(decide)
    script.local, script.port, script.peer_port = bytes((192, 0, 2, 7)), 443, 40000
    script.inject("S", seq=0, mss=1380)
    assert asked == [(("192.0.2.7", 443), ("10.0.0.2", 40000))]
    if answer is Fallback.ACCEPT:
        script.expect("SA", ack=1)
        script.inject("PA", seq=1, ack=1, payload=b"hello")
        script.expect("A", ack=6)
        connection = listener.accept()
        assert connection is not None
        assert connection.local == ("192.0.2.7", 443)
        assert connection.read(10, script.now) == b"hello"
    elif answer is Fallback.REFUSE:
        script.expect("RA", ack=1)
    else:
        script.expect_nothing()
    listener.close(script.now)
    script.peer_port = 40001
    script.inject("S", seq=0, mss=1380)
    script.expect_nothing()


def test_two_stacks_with_the_same_address_live_side_by_side():
    """Section 2.5: no state of the module."""
    links = [join(Link(seed=seed)) for seed in (1, 2)]
    for number, link in enumerate(links):
        listener = link.sides[1].stack.listen_tcp(80)
        connection = link.sides[0].stack.connect_tcp(("10.0.0.2", 80), link.now)
        connection.write(b"stack %d" % number, link.now)
        assert link.run_until(lambda listener=listener: listener.is_readable, 1)
        accepted = listener.accept()
        assert link.run_until(lambda accepted=accepted: accepted.is_readable, 1)
        assert accepted.read(100, link.now) == b"stack %d" % number


def test_statistics_count_what_happened():
    link = join(Link(seed=1))
    a, b = (side.stack for side in link.sides)
    b.listen_tcp(80)
    a.connect_tcp(("10.0.0.2", 80), link.now)
    refused = a.connect_tcp(("10.0.0.2", 81), link.now)
    link.run(1)
    assert isinstance(refused.error, ConnectionRefusedError)
    here, there = a.statistics(), b.statistics()
    assert (here.opened, here.failed, here.connections) == (1, 1, 1)
    assert (there.opened, there.resets_sent) == (1, 1)
    assert here.packets_sent == there.packets_received == 3
    assert there.drops == {DropReason.TCP_NO_CONNECTION: 1}


def test_the_buffers_of_a_stack_have_a_limit(monkeypatch):
    """Section 4: receive buffers grow only while the stack's total allows it."""
    monkeypatch.setattr("wgpy.netstack.tcp.host.STACK_BUFFERS", 1 << 18)
    script = Script()
    for number in range(4):
        connection = _open(script, 2000 + number)
        at = 1
        for _ in range(6):
            room = connection.info().receive_window
            for first in range(at, at + room, 60_000):
                script.inject("A", seq=first, ack=1, payload=bytes(min(60_000, at + room - first)))
            at += room
            script.sleep(0.05)
            connection.read(1 << 20, script.now)
            script.collect()
    flows = script.stack._tcp.flows.values()
    assert sum(conn.receiver.capacity - 65536 for conn in flows) == 1 << 18
    for connection in list(flows):
        connection.abort(script.now)
    assert script.stack._tcp.grow(1 << 20) == 1 << 18, "what was granted comes back"

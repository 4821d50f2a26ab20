"""Back-pressure of the tunnel: what may not be sent now stays in the stack, and only that."""

from __future__ import annotations

from tests.netstack.hosts import Wire
from wgpy.wire import ip

B = ip.from_text("10.0.0.2")


def closed_to_b(destination: bytes, now: float) -> bool:
    return destination != B


def test_datagrams_wait_and_those_for_others_do_not() -> None:
    wire = Wire()
    wire.a.stack.may_send = closed_to_b
    waiting, other = wire.a.udp.open(remote=("10.0.0.2", 7)), wire.a.udp.open(remote=("10.0.0.3", 7))
    waiting.send(b"1", 0.0)
    other.send(b"2", 0.0)
    waiting.send(b"3", 0.0)
    assert [packet[-1:] for packet in wire.a.emit()] == [b"2"]
    assert wire.a.emit() == []
    waiting.send(b"4", 0.0)
    wire.a.stack.may_send = lambda destination, now: True
    assert [packet[-1:] for packet in wire.a.emit()] == [b"1", b"3", b"4"]


def test_a_queue_that_waits_fills_up_and_empties_again() -> None:
    wire = Wire()
    wire.a.stack.may_send = closed_to_b
    client = wire.a.udp.open(remote=("10.0.0.2", 7))
    wire.a.emit()
    sent = 0
    while client.send(bytes(1000), 0.0):
        sent += 1
        wire.a.emit()
    assert not client.is_writable or sent > 200
    wire.a.stack.may_send = lambda destination, now: True
    assert len(wire.a.emit()) == sent
    assert wire.a.ready == [client]


def test_tcp_shakes_hands_but_holds_its_data_and_counts_none_as_sent() -> None:
    wire = Wire()
    listener = wire.b.stack.listen_tcp(80)
    wire.a.stack.may_send = closed_to_b
    client = wire.a.stack.connect_tcp(("10.0.0.2", 80), 0.0)
    wire.run()
    server = listener.accept()
    assert server is not None
    assert client.is_established
    assert client.write(bytes(50_000), 0.0) == 50_000
    wire.run()
    assert (client.info().flight, client.info().send_buffered) == (0, 50_000)
    # No retransmission is due for what was never sent.
    wire.a.stack.handle_timer(60.0)
    assert wire.a.emit(60.0) == []
    assert client.info().retransmits == 0
    wire.a.stack.may_send = lambda destination, now: True
    wire.now = 60.0
    wire.run()
    assert client.info().send_buffered == 0
    assert len(server.read(2**20, 60.0)) == 50_000

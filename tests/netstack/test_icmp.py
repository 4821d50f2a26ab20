"""Echo in both roles, and the errors that the stack sends and takes; N35, N37."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ParamProblem, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrRouting
from scapy.packet import Raw

from tests.netstack.hosts import Host, Wire
from wgpy.errors import DropReason
from wgpy.netstack.constants import ECHO_REPLIES_BURST, ICMP_ANSWERS_BURST
from wgpy.netstack.icmp import TokenBucket
from wgpy.wire import icmp, ip
from wgpy.wire.icmp import IcmpMessage

A, B = ip.from_text("10.0.0.1"), ip.from_text("10.0.0.2")
A6, B6 = ip.from_text("fd00::1"), ip.from_text("fd00::2")


def packet(source: bytes, target: bytes, message: IcmpMessage) -> bytes:
    octets = icmp.encode(source, target, message)
    return ip.encode_header(source, target, ip.ICMP if len(source) == 4 else ip.ICMPV6, len(octets)) + octets


# --- echo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["10.0.0.2", "fd00::2"])
@pytest.mark.parametrize("size", [0, 56, 1372, 1392, 1393, 65507])
def test_a_question_comes_back_with_its_payload_and_its_time(there: str, size: int) -> None:
    wire = Wire()
    echo = wire.a.icmp.open_echo(there)
    payload = bytes(index % 251 for index in range(size))
    assert echo.send(5, payload, 10.0)
    packets = wire.a.emit()
    wire.b.receive(*packets, now=10.1)
    wire.a.receive(*wire.b.emit(), now=10.25)
    assert wire.a.ready == [echo]
    assert echo.receive() == (5, pytest.approx(0.25), payload)
    assert echo.receive() is None


@pytest.mark.parametrize(
    ("source", "identifier", "sequence"), [("10.0.0.3", 0, 1), ("10.0.0.2", 1, 1), ("10.0.0.2", 0, 2)]
)
def test_an_answer_that_nobody_asked_for_is_dropped(source: str, identifier: int, sequence: int) -> None:
    host = Host("a")
    echo = host.icmp.open_echo("10.0.0.2")
    echo.send(1, b"", 0.0)
    rest = (echo.identifier ^ identifier) << 16 | sequence
    host.receive(packet(ip.from_text(source), A, IcmpMessage(0, 0, rest, b"")))
    assert echo.receive() is None
    assert host.drops == {DropReason.ICMP_UNRELATED: 1}


def test_an_answer_counts_once() -> None:
    host = Host("a")
    echo = host.icmp.open_echo("10.0.0.2")
    echo.send(1, b"", 0.0)
    answer = packet(B, A, IcmpMessage(0, 0, echo.identifier << 16 | 1, b""))
    host.receive(answer, answer, now=1.0)
    assert echo.receive() is not None
    assert echo.receive() is None


def test_a_flood_of_questions_is_answered_in_part() -> None:
    host = Host("b")
    question = packet(A, B, IcmpMessage(8, 0, 1, b"x"))
    for _ in range(2000):
        host.receive(question)
    assert len(host.emit()) == ECHO_REPLIES_BURST
    assert host.drops == {DropReason.ICMP_RATE_LIMITED: 1000}
    host.receive(question, now=0.01)
    assert len(host.emit()) == 1


def test_an_unreachable_host_is_told_to_who_asked() -> None:
    host = Host("a")
    echo = host.icmp.open_echo("10.0.0.2")
    echo.send(1, b"x", 0.0)
    [question] = host.emit()
    answer = icmp.host_unreachable(question)
    assert answer is not None
    host.receive(answer)
    with pytest.raises(OSError, match=r"10\.0\.0\.2") as told:
        echo.receive()
    assert told.value.errno == errno.EHOSTUNREACH


def test_a_closed_socket_hears_nothing() -> None:
    host = Host("a")
    echo = host.icmp.open_echo("10.0.0.2")
    echo.send(1, b"", 0.0)
    echo.close()
    host.receive(packet(B, A, IcmpMessage(0, 0, echo.identifier << 16 | 1, b"")))
    assert host.drops == {DropReason.ICMP_UNRELATED: 1}
    with pytest.raises(OSError, match="Bad file"):
        echo.send(1, b"", 0.0)


# --- errors out ------------------------------------------------------------------------------------------------------


def test_errors_are_limited() -> None:
    host = Host("b")
    question = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=9) / Raw(b"?"))
    for _ in range(100):
        host.receive(question)
    assert len(host.emit()) == ICMP_ANSWERS_BURST
    assert host.drops == {DropReason.NO_SOCKET: 100, DropReason.ICMP_RATE_LIMITED: 50}


def test_an_unknown_protocol_is_answered() -> None:
    host = Host("b")
    host.receive(bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=132) / Raw(bytes(20))))
    [answer] = host.emit()
    assert (IP(answer).payload.type, IP(answer).payload.code) == (3, 2)
    host.receive(bytes(IPv6(src="fd00::1", dst="fd00::2", nh=132) / Raw(bytes(20))))
    [answer] = host.emit()
    problem = IPv6(answer)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 6)
    assert host.drops == {DropReason.UNKNOWN_PROTOCOL: 2}


def test_a_header_that_cannot_be_obeyed_is_answered() -> None:
    host = Host("b")
    routed = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrRouting(segleft=1, addresses=["fd00::9"]) / UDP()
    host.receive(bytes(routed))
    [answer] = host.emit()
    problem = IPv6(answer)[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 42)


@pytest.mark.parametrize(("source", "target", "wait"), [(A, B, 30.0), (A6, B6, 60.0)])
def test_a_packet_whose_rest_never_comes_is_answered(source: bytes, target: bytes, wait: float) -> None:
    host = Host("b")
    part = ip.Fragment(7, 0, False)
    host.receive(ip.encode_header(source, target, ip.UDP, 16, fragment=part) + bytes(16), now=5.0)
    assert host.stack.next_deadline() == 5.0 + wait
    host.stack.handle_timer(5.0 + wait)
    [answer] = host.emit(5.0 + wait)
    if len(source) == 4:
        assert (IP(answer).payload.type, IP(answer).payload.code) == (11, 1)
    else:
        assert IPv6(answer)[ICMPv6TimeExceeded].code == 1


# --- errors in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "kind", "code", "number"),
    [
        ((A, B), 3, 0, errno.ENETUNREACH),
        ((A, B), 3, 1, errno.EHOSTUNREACH),
        ((A, B), 3, 2, errno.ENOPROTOOPT),
        ((A, B), 3, 3, errno.ECONNREFUSED),
        ((A, B), 3, 9, errno.ENETUNREACH),
        ((A, B), 3, 10, errno.EHOSTUNREACH),
        ((A, B), 3, 13, errno.EHOSTUNREACH),
        ((A, B), 3, 15, errno.EHOSTUNREACH),
        ((A, B), 11, 0, errno.EHOSTUNREACH),
        ((A, B), 12, 0, errno.EPROTO),
        ((A6, B6), 1, 0, errno.ENETUNREACH),
        ((A6, B6), 1, 1, errno.EACCES),
        ((A6, B6), 1, 3, errno.EHOSTUNREACH),
        ((A6, B6), 1, 4, errno.ECONNREFUSED),
        ((A6, B6), 4, 1, errno.ENOPROTOOPT),
        ((A6, B6), 3, 0, errno.EHOSTUNREACH),
    ],
)
def test_what_an_error_means_to_a_connected_socket(
    ends: tuple[bytes, bytes], kind: int, code: int, number: int
) -> None:
    host = Host("a")
    client = host.udp.open(remote=(ip.to_text(ends[1]), 7))
    client.send(b"hello", 0.0)
    [question] = host.emit()
    # From a router on the way, not from the host itself.
    router = ip.from_text("10.0.9.9") if len(ends[0]) == 4 else ip.from_text("fd00::9:9")
    answer = icmp.error(question, kind, code, source=router)
    assert answer is not None
    host.receive(answer)
    with pytest.raises(OSError, match="reported by ICMP") as told:
        client.receive()
    assert told.value.errno == number


@pytest.mark.parametrize(("kind", "code"), [(3, 16), (3, 200), (11, 1), (4, 0), (5, 1)])
def test_messages_that_are_no_errors_of_the_path_are_not_told(kind: int, code: int) -> None:
    host = Host("a")
    client = host.udp.open(remote=(ip.to_text(B), 7))
    client.send(b"hello", 0.0)
    [question] = host.emit()
    answer = icmp.error(question, kind, code, source=ip.from_text("10.0.9.9"))
    assert answer is not None
    host.receive(answer)
    assert not client.is_readable
    assert host.drops[DropReason.ICMP_UNRELATED] == 1


@given(st.integers(0, 255), st.integers(0, 20), st.integers(0, 2**32 - 1), st.binary(max_size=80), st.booleans())
def test_hostile_messages_raise_nothing(kind: int, code: int, rest: int, body: bytes, is_v6: bool) -> None:
    host = Host("a")
    client = host.udp.open(remote=("fd00::2" if is_v6 else "10.0.0.2", 7))
    ends = (B6, A6) if is_v6 else (B, A)
    host.receive(packet(*ends, IcmpMessage(kind, code, rest, body)))
    assert not client.is_readable


def test_a_bucket_fills_with_time_and_not_above_its_burst() -> None:
    bucket = TokenBucket(10.0, 3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.1), bucket.take(0.1)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]

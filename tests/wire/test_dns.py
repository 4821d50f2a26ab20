"""DNS messages against scapy."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT

from wgpy.errors import BadPacket
from wgpy.wire import dns
from wgpy.wire.dns import Record, Response

NAME = (b"wWw", b"example")


def test_a_query_is_that_of_scapy() -> None:
    message = dns.encode_query(0x1234, NAME, dns.AAAA, payload_size=1232)
    expected = DNS(id=0x1234, rd=1, qd=DNSQR(qname="wWw.example.", qtype="AAAA"), ar=DNSRROPT(rclass=1232, z=0))
    assert message == bytes(expected)
    plain = dns.encode_query(0x1234, NAME, dns.A, payload_size=None)
    assert plain == bytes(DNS(id=0x1234, rd=1, qd=DNSQR(qname="wWw.example.", qtype="A")))


def answer(*records: DNSRR, **fields: object) -> bytes:
    return bytes(DNS(id=7, qr=1, qd=DNSQR(qname="wWw.example."), an=list(records), **fields))


def test_addresses_and_aliases_are_read() -> None:
    message = answer(
        DNSRR(rrname="www.example.", type="CNAME", ttl=9, rdata="a.b.example."),
        DNSRR(rrname="a.b.example.", type="A", ttl=5, rdata="192.0.2.1"),
        DNSRR(rrname="a.b.example.", type="AAAA", ttl=5, rdata="2001:db8::1"),
        DNSRR(rrname="a.b.example.", type="TXT", rdata=b"noise"),
    )
    response = Response.decode_untrusted(message)
    assert (response.identifier, response.code, response.is_truncated) == (7, 0, False)
    assert response.question == (NAME, dns.A)
    target = (b"a", b"b", b"example")
    assert response.answers[:3] == (
        Record((b"www", b"example"), dns.CNAME, 9, target),
        Record(target, dns.A, 5, bytes([192, 0, 2, 1])),
        Record(target, dns.AAAA, 5, bytes.fromhex("20010db8000000000000000000000001")),
    )
    assert response.answers[3].data == b""


def test_pointers_are_followed() -> None:
    message = bytearray(answer(DNSRR(rrname="wWw.example.", type="A", rdata="192.0.2.1")))
    plain = b"\3wWw\7example\0"
    at = message.rindex(plain)
    message[at : at + len(plain)] = b"\xc0\x0c"
    assert Response.decode_untrusted(bytes(message)).answers[0].name == NAME


def test_a_truncated_message_has_no_answers() -> None:
    message = answer(DNSRR(rrname="www.example.", type="A", rdata="192.0.2.1"), tc=1)[:-3]
    response = Response.decode_untrusted(message)
    assert response.is_truncated
    assert response.answers == ()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        dns.encode_query(7, NAME, dns.A, payload_size=None),
        bytes(DNS(id=7, qr=1, opcode=2, qd=DNSQR(qname="a."))),
        bytes(DNS(id=7, qr=1, qd=[])),
        answer(DNSRR(rrname="www.example.", type="A", rdata="192.0.2.1"))[:-1],
        # A pointer to itself, and one that leads forward.
        bytes(DNS(id=7, qr=1, qdcount=1))[:12] + b"\xc0\x0c\0\1\0\1",
        bytes(DNS(id=7, qr=1, qdcount=1))[:12] + b"\xc0\x10\0\1\0\1\0\0",
        # A label that ends where the message ends.
        bytes(DNS(id=7, qr=1, qdcount=1))[:12] + b"\x3fabc",
    ],
)
def test_what_is_no_response_to_one_question_is_refused(message: bytes) -> None:
    with pytest.raises(BadPacket):
        Response.decode_untrusted(message)


@given(st.binary(max_size=64), st.booleans())
def test_hostile_bytes_raise_only_bad_packet(octets: bytes, has_head: bool) -> None:
    head = bytes.fromhex("000780000001000200000000") if has_head else b""
    with contextlib.suppress(BadPacket):
        Response.decode_untrusted(head + octets)


def test_names_are_checked() -> None:
    assert dns.parse_name("Example.org.") == (b"Example", b"org")
    assert dns.parse_name("bücher.example") == (b"xn--bcher-kva", b"example")
    for bad in ("", ".", "a..b", "x" * 64 + ".example", ".".join(["x" * 60] * 5)):
        with pytest.raises(ValueError, match="is no host name"):
            dns.parse_name(bad)

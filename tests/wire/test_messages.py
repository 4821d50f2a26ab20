"""The four messages against scapy's WireGuard layer and a `construct` declaration, both ways; T1, T2, B1, S4."""

from __future__ import annotations

import warnings
from typing import Any

import construct as c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.constants import COOKIE_REPLY_SIZE, INITIATION_SIZE, RESPONSE_SIZE
from wgpy.errors import BadPacket, DropReason
from wgpy.wire.messages import TRANSPORT_HEADER, CookieReply, Initiation, Response

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.contrib.wireguard import Wireguard

INITIATION = c.Struct(
    "kind" / c.Const(1, c.Byte),
    "reserved" / c.Const(b"\0\0\0"),
    "sender" / c.Int32ul,
    "ephemeral" / c.Bytes(32),
    "static" / c.Bytes(48),
    "timestamp" / c.Bytes(28),
    "mac1" / c.Bytes(16),
    "mac2" / c.Bytes(16),
    c.Terminated,
)
RESPONSE = c.Struct(
    "kind" / c.Const(2, c.Byte),
    "reserved" / c.Const(b"\0\0\0"),
    "sender" / c.Int32ul,
    "receiver" / c.Int32ul,
    "ephemeral" / c.Bytes(32),
    "nothing" / c.Bytes(16),
    "mac1" / c.Bytes(16),
    "mac2" / c.Bytes(16),
    c.Terminated,
)
COOKIE_REPLY = c.Struct(
    "kind" / c.Const(3, c.Byte),
    "reserved" / c.Const(b"\0\0\0"),
    "receiver" / c.Int32ul,
    "nonce" / c.Bytes(24),
    "cookie" / c.Bytes(32),
    c.Terminated,
)
TRANSPORT = c.Struct(
    "kind" / c.Const(4, c.Byte),
    "reserved" / c.Const(b"\0\0\0"),
    "receiver" / c.Int32ul,
    "counter" / c.Int64ul,
    "sealed" / c.GreedyBytes,
)

index = st.integers(0, 2**32 - 1)


def octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


initiations = st.builds(Initiation, index, octets(32), octets(48), octets(28))
responses = st.builds(Response, index, index, octets(32), octets(16))
cookie_replies = st.builds(CookieReply, index, octets(24), octets(32))
macs = octets(32)


def built(declaration: c.Struct, **fields: object) -> bytes:
    return bytes(declaration.build(fields))


@given(initiations, macs)
def test_an_initiation_is_what_construct_and_scapy_say(message: Initiation, mac: bytes) -> None:
    wire = message.encode() + mac
    fields = dict(zip(("sender", "ephemeral", "static", "timestamp"), message, strict=True))
    assert built(INITIATION, **fields, mac1=mac[:16], mac2=mac[16:]) == wire
    assert all(INITIATION.parse(wire)[name] == value for name, value in fields.items())
    assert Initiation.decode_untrusted(wire) == message
    layer = Wireguard(wire).payload
    assert (layer.sender_index, layer.mac1, layer.mac2) == (message.sender_index, mac[:16], mac[16:])
    assert layer.unencrypted_ephemeral == message.ephemeral
    assert (layer.encrypted_static, layer.encrypted_timestamp) == (
        message.encrypted_static,
        message.encrypted_timestamp,
    )
    assert bytes(Wireguard(message_type=1) / rebuilt(layer)) == wire


@given(responses, macs)
def test_a_response_is_what_construct_and_scapy_say(message: Response, mac: bytes) -> None:
    wire = message.encode() + mac
    fields = dict(zip(("sender", "receiver", "ephemeral", "nothing"), message, strict=True))
    assert built(RESPONSE, **fields, mac1=mac[:16], mac2=mac[16:]) == wire
    assert all(RESPONSE.parse(wire)[name] == value for name, value in fields.items())
    assert Response.decode_untrusted(wire) == message
    layer = Wireguard(wire).payload
    assert (layer.sender_index, layer.receiver_index) == message[:2]
    assert layer.encrypted_nothing == message.encrypted_nothing
    assert bytes(Wireguard(message_type=2) / rebuilt(layer)) == wire


@given(cookie_replies)
def test_a_cookie_reply_is_what_construct_and_scapy_say(message: CookieReply) -> None:
    wire = message.encode()
    fields = dict(zip(("receiver", "nonce", "cookie"), message, strict=True))
    assert built(COOKIE_REPLY, **fields) == wire
    assert all(COOKIE_REPLY.parse(wire)[name] == value for name, value in fields.items())
    assert CookieReply.decode_untrusted(wire) == message
    layer = Wireguard(wire).payload
    assert (layer.receiver_index, layer.nonce, layer.encrypted_cookie) == (
        message.receiver_index,
        message.nonce,
        message.encrypted_cookie,
    )
    assert bytes(Wireguard(message_type=3) / rebuilt(layer)) == wire


@given(index, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=64))
def test_a_transport_header_is_what_construct_and_scapy_say(receiver: int, counter: int, sealed: bytes) -> None:
    wire = TRANSPORT_HEADER.pack(4, receiver, counter) + sealed
    assert built(TRANSPORT, receiver=receiver, counter=counter, sealed=sealed) == wire
    assert TRANSPORT_HEADER.unpack_from(wire) == (4, receiver, counter)
    layer = Wireguard(wire).payload
    assert (layer.receiver_index, layer.counter) == (receiver, counter)
    assert layer.encrypted_encapsulated_packet == sealed


def rebuilt(layer: Any) -> Any:
    """The layer from its fields alone, so that its octets are built and not remembered."""
    return type(layer)(**layer.fields)


CODECS = {
    Initiation: (INITIATION_SIZE, 1),
    Response: (RESPONSE_SIZE, 2),
    CookieReply: (COOKIE_REPLY_SIZE, 3),
}


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
def test_hostile_octets_decode_or_are_bad_packets(codec: type[Initiation], data: st.DataObject) -> None:
    """S4: nothing else is ever raised."""
    size, kind = CODECS[codec]
    message = data.draw(
        st.binary(max_size=200)
        | octets(size)
        | octets(size - 4).map(lambda rest: bytes([kind, 0, 0, 0]) + rest)
        | octets(size - 4).map(lambda rest: bytes([kind, 0, 1, 0]) + rest)
    )
    if len(message) == size and message[:4] == bytes([kind, 0, 0, 0]):
        assert message.startswith(codec.decode_untrusted(message).encode())
    else:
        with pytest.raises(BadPacket):
            codec.decode_untrusted(message)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("off", [-1, 1])
def test_t2_sizes_are_exact(codec: type[Initiation], off: int) -> None:
    size, kind = CODECS[codec]
    with pytest.raises(BadPacket) as raised:
        codec.decode_untrusted(bytes([kind]) + bytes(size - 1 + off))
    assert raised.value.reason is DropReason.WRONG_LENGTH


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_t1_anything_in_the_reserved_octets_is_another_type(codec: type[Initiation], place: int) -> None:
    size, kind = CODECS[codec]
    message = bytearray([kind]) + bytes(size - 1)
    message[place] ^= 0x40
    with pytest.raises(BadPacket) as raised:
        codec.decode_untrusted(bytes(message))
    assert raised.value.reason is DropReason.UNKNOWN_TYPE

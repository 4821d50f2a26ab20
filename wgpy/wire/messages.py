"""The four messages: field tables, and structs that decode and encode them.

    initiation, 148     0 type 1 | 1 zero 3 | 4 sender u32 | 8 ephemeral 32 | 40 encrypted static 48
                        88 encrypted timestamp 28 | 116 mac1 16 | 132 mac2 16
    response, 92        0 type 2 | 1 zero 3 | 4 sender u32 | 8 receiver u32 | 12 ephemeral 32
                        44 encrypted nothing 16 | 60 mac1 16 | 76 mac2 16
    cookie reply, 64    0 type 3 | 1 zero 3 | 4 receiver u32 | 8 nonce 24 | 32 encrypted cookie 32
    transport, >= 32    0 type 4 | 1 zero 3 | 4 receiver u32 | 8 counter u64 | 16 ciphertext and tag

Integers are little-endian. Type and reserved bytes are one 32-bit number: anything in the reserved bytes makes it
another type (trap T1).

Source: WireGuard whitepaper, section 5.4.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    RESPONSE_SIZE,
)
from wgpy.errors import BadPacket, DropReason

__all__ = [
    "MACS_SIZE",
    "TRANSPORT_HEADER",
    "CookieReply",
    "Initiation",
    "Response",
]

TRANSPORT_HEADER: Final = struct.Struct("<IIQ")
MACS_SIZE: Final = 2 * 16

_INITIATION: Final = struct.Struct("<II32s48s28s")
_RESPONSE: Final = struct.Struct("<III32s16s")
_COOKIE_REPLY: Final = struct.Struct("<II24s32s")


class Initiation(NamedTuple):
    """First message of a handshake, without its two MACs."""

    sender_index: int
    ephemeral: bytes
    encrypted_static: bytes
    encrypted_timestamp: bytes

    @classmethod
    def decode_untrusted(cls, message: bytes) -> Initiation:
        """Take 148 octets apart.

        Raises:
            BadPacket: another length or type.
        """
        _check(message, INITIATION_SIZE, MESSAGE_INITIATION)
        return cls(*_INITIATION.unpack_from(message)[1:])

    def encode(self) -> bytes:
        """The 116 octets before mac1."""
        return _INITIATION.pack(MESSAGE_INITIATION, *self)


class Response(NamedTuple):
    """Second message of a handshake, without its two MACs."""

    sender_index: int
    receiver_index: int
    ephemeral: bytes
    encrypted_nothing: bytes

    @classmethod
    def decode_untrusted(cls, message: bytes) -> Response:
        """Take 92 octets apart.

        Raises:
            BadPacket: another length or type.
        """
        _check(message, RESPONSE_SIZE, MESSAGE_RESPONSE)
        return cls(*_RESPONSE.unpack_from(message)[1:])

    def encode(self) -> bytes:
        """The 60 octets before mac1."""
        return _RESPONSE.pack(MESSAGE_RESPONSE, *self)


class CookieReply(NamedTuple):
    """What a responder under load answers instead of a response."""

    receiver_index: int
    nonce: bytes
    encrypted_cookie: bytes

    @classmethod
    def decode_untrusted(cls, message: bytes) -> CookieReply:
        """Take 64 octets apart.

        Raises:
            BadPacket: another length or type.
        """
        _check(message, COOKIE_REPLY_SIZE, MESSAGE_COOKIE_REPLY)
        return cls(*_COOKIE_REPLY.unpack(message)[1:])

    def encode(self) -> bytes:
        """All 64 octets."""
        return _COOKIE_REPLY.pack(MESSAGE_COOKIE_REPLY, *self)


def _check(message: bytes, size: int, kind: int) -> None:
    if len(message) != size:
        raise BadPacket(DropReason.WRONG_LENGTH)
    if int.from_bytes(message[:4], "little") != kind:
        raise BadPacket(DropReason.UNKNOWN_TYPE)

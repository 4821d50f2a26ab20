"""DNS messages of a stub resolver: the query with its EDNS record, and what a response says about one question.

    header, 12      0 identifier u16 | 2 flags u16 | 4 questions u16 | 6 answers u16 | 8 authorities | 10 additionals
    question        name | type u16 | class u16
    record          name | type u16 | class u16 | TTL u32 | length u16 | data
    name            labels, each after its length, and a zero; or a pointer, two octets from 0xc000 on, to such

A name is a tuple of labels here. DNS compares ASCII letters without regard to case; we compare the question octet for
octet, because the case we chose is part of what a forger has to guess.

Source: RFC 1035 4, RFC 3596 2, RFC 6891 6.1, RFC 5452.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from wgpy.errors import BadPacket, DropReason

__all__ = ["AAAA", "CNAME", "A", "Name", "Record", "Response", "encode_query", "parse_name"]

Name: TypeAlias = tuple[bytes, ...]

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
_OPT: Final = 41
_IN: Final = 1

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")

_IS_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_MAX_LABEL: Final = 63
_MAX_NAME: Final = 255


class Record(NamedTuple):
    """One answer.

    Attributes:
        name: whose.
        kind: type.
        ttl: seconds.
        data: an address of 4 or 16 octets, or the name that a CNAME points to; empty for other types.
    """

    name: Name
    kind: int
    ttl: int
    data: bytes | Name


class Response(NamedTuple):
    """What a server said.

    Attributes:
        identifier: of the query.
        code: response code: 0 no error, 1 format, 2 server failure, 3 no such name, 5 refused.
        is_truncated: ask again over TCP.
        question: name and type, the name as it was written in the query.
        answers: of class IN.
    """

    identifier: int
    code: int
    is_truncated: bool
    question: tuple[Name, int]
    answers: tuple[Record, ...]

    @classmethod
    def decode_untrusted(cls, message: bytes) -> Response:
        """Take a message apart; authorities and additionals are not looked at.

        Raises:
            BadPacket: no response to one question, or cut short without saying so.
        """
        try:
            return _decode(message)
        except (struct.error, IndexError):
            raise BadPacket(DropReason.DNS_MALFORMED) from None


def parse_name(text: str) -> Name:
    """The labels of a name, internationalised ones as IDNA has them.

    Raises:
        ValueError: an empty or an overlong label, or an overlong name.
    """
    stripped = text.removesuffix(".")
    try:
        labels = tuple(stripped.encode("ascii" if stripped.isascii() else "idna").split(b"."))
    except UnicodeError as problem:
        raise ValueError(f"{text!r} is no host name: {problem}") from None
    if not all(0 < len(label) <= _MAX_LABEL for label in labels) or sum(map(len, labels)) + len(labels) >= _MAX_NAME:
        raise ValueError(f"{text!r} is no host name: labels have 1 to {_MAX_LABEL} octets, a name fewer than 255")
    return labels


def encode_query(identifier: int, name: Name, kind: int, *, payload_size: int | None) -> bytes:
    """A question to a recursive server.

    Args:
        identifier: 16 bits.
        name: in the case that the answer must repeat.
        kind: type.
        payload_size: octets of answer that we take over UDP, told by EDNS; None to leave EDNS out.
    """
    labels = b"".join(len(label).to_bytes(1) + label for label in name) + b"\0"
    extra = b"" if payload_size is None else b"\0" + _RECORD.pack(_OPT, payload_size, 0, 0)
    header = _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 1 if extra else 0)
    return header + labels + _QUESTION.pack(kind, _IN) + extra


def _decode(message: bytes) -> Response:
    identifier, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if not flags & _IS_RESPONSE or flags & _OPCODE or questions != 1:
        raise BadPacket(DropReason.DNS_MALFORMED)
    name, at = _read_name(message, _HEADER.size)
    kind, class_ = _QUESTION.unpack_from(message, at)
    if class_ != _IN:
        raise BadPacket(DropReason.DNS_MALFORMED)
    at += _QUESTION.size
    is_truncated = bool(flags & _TRUNCATED)
    records: list[Record] = []
    for _ in range(0 if is_truncated else answers):
        owner, at = _read_name(message, at)
        record_kind, class_, ttl, size = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if at + size > len(message):
            raise BadPacket(DropReason.DNS_MALFORMED)
        data: bytes | Name = b""
        if record_kind == CNAME:
            data = _read_name(message, at)[0]
        elif (record_kind, size) in ((A, 4), (AAAA, 16)):
            data = message[at : at + size]
        at += size
        if class_ == _IN:
            records.append(Record(owner, record_kind, ttl, data))
    return Response(identifier, flags & 0xF, is_truncated, (name, kind), tuple(records))


def _read_name(message: bytes, at: int) -> tuple[Name, int]:
    """A name, and where to read on."""
    labels: list[bytes] = []
    size = 1
    end: int | None = None
    while (length := message[at]) != 0:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | message[at + 1]
            # Backwards only: so it cannot go round in circles.
            if target >= at:
                raise BadPacket(DropReason.DNS_MALFORMED)
            end = at + 2 if end is None else end
            at = target
            continue
        size += length + 1
        if length > _MAX_LABEL or size > _MAX_NAME or at + 1 + length >= len(message):
            raise BadPacket(DropReason.DNS_MALFORMED)
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels), at + 1 if end is None else end

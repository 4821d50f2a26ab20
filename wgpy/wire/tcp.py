"""TCP header and options: decode and encode, under the field table.

    0 source port u16 | 2 destination port u16 | 4 sequence u32 | 8 acknowledgement u32
    12 header words 4, zero 4 | 13 flags | 14 window u16 | 16 checksum u16 | 18 urgent u16 | 20 options

    options     0 end | 1 padding | 2 MSS, 4 | 3 window scale, 3 | 4 SACK permitted, 2 | 5 SACK, 2 + 8n
                8 timestamps, 10

Sequence numbers are 32 bits here and absolute inside the stack; the door between is `netstack/tcp/options`.

Source: RFC 9293 section 3.1, RFC 7323 sections 2.2 and 3.2, RFC 2018 sections 2 and 3.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from wgpy.errors import BadPacket, DropReason

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "HEADER",
    "HEADER_SIZE",
    "PSH",
    "RST",
    "SYN",
    "TIMESTAMPS_SIZE",
    "URG",
    "Segment",
    "decode_untrusted",
    "encode",
    "encode_options",
    "encode_timestamps",
]

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

HEADER_SIZE: Final = 20
TIMESTAMPS_SIZE: Final = 12  # with its two octets of padding, as RFC 7323 appendix A recommends
HEADER: Final = struct.Struct("!HHIIBBHHH")

_TIMESTAMPS: Final = struct.Struct("!III")
# Two of padding, kind 8, length 10.
_TIMESTAMPS_WORD: Final = 0x0101080A

Octets: TypeAlias = bytes | bytearray | memoryview
Block: TypeAlias = tuple[int, int]


class Segment(NamedTuple):
    """A header as it is on the wire.

    Attributes:
        source_port: 16 bits.
        destination_port: 16 bits.
        sequence: 32 bits.
        acknowledgement: 32 bits; means nothing without ACK.
        flags: the octet.
        window: 16 bits, not scaled.
        header_length: octets, options included.
        mss: None where there is no such option; likewise below.
        scale: of the window, at most 14.
        timestamps: value and echo.
        sack_permitted: whether the option is there.
        sack: blocks, left edge and the one after the last octet.
    """

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    header_length: int = HEADER_SIZE
    mss: int | None = None
    scale: int | None = None
    timestamps: tuple[int, int] | None = None
    sack_permitted: bool = False
    sack: tuple[Block, ...] = ()


def decode_untrusted(packet: Octets, at: int, end: int) -> Segment:
    """Take the header at `at` apart; the payload ends at `end`. The checksum is not looked at.

    Raises:
        BadPacket: cut short, or an option whose length cannot be (RFC 9293 MUST-7).
    """
    if end - at < HEADER_SIZE:
        raise BadPacket(DropReason.TRANSPORT_HEADER)
    source, destination, sequence, acknowledgement, words, flags, window, _, _ = HEADER.unpack_from(packet, at)
    length = words >> 4 << 2
    if length == HEADER_SIZE:
        return Segment(source, destination, sequence, acknowledgement, flags, window)
    if length < HEADER_SIZE or at + length > end:
        raise BadPacket(DropReason.TRANSPORT_HEADER)
    if length == 32:
        word, value, echo = _TIMESTAMPS.unpack_from(packet, at + HEADER_SIZE)
        if word == _TIMESTAMPS_WORD:
            return Segment(source, destination, sequence, acknowledgement, flags, window, 32, None, None, (value, echo))
    fields = source, destination, sequence, acknowledgement, flags, window, length
    return _with_options(fields, bytes(packet[at + HEADER_SIZE : at + length]))


def _with_options(fields: tuple[int, int, int, int, int, int, int], options: bytes) -> Segment:
    mss = scale = timestamps = None
    sack_permitted = False
    sack: tuple[Block, ...] = ()
    at, end = 0, len(options)
    while at < end:
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            raise BadPacket(DropReason.TCP_OPTIONS)
        # An option of a known kind and an unknown length is passed over, as an unknown kind is.
        if kind == 2 and size == 4:
            mss = int.from_bytes(options[at + 2 : at + 4])
        elif kind == 3 and size == 3:
            scale = min(options[at + 2], 14)  # RFC 7323 2.3: 14 is used for anything above
        elif kind == 4 and size == 2:
            sack_permitted = True
        elif kind == 5 and size >= 10 and size % 8 == 2:
            edges = struct.unpack_from(f"!{(size - 2) // 4}I", options, at + 2)
            sack = tuple(zip(edges[::2], edges[1::2], strict=True))
        elif kind == 8 and size == 10:
            timestamps = int.from_bytes(options[at + 2 : at + 6]), int.from_bytes(options[at + 6 : at + 10])
        at += size
    return Segment(*fields, mss, scale, timestamps, sack_permitted, sack)


def encode_timestamps(value: int, echo: int) -> bytes:
    """The option with its padding, 12 octets."""
    return _TIMESTAMPS.pack(_TIMESTAMPS_WORD, value, echo)


def encode_options(
    *,
    mss: int | None = None,
    scale: int | None = None,
    timestamps: tuple[int, int] | None = None,
    sack_permitted: bool = False,
    sack: tuple[Block, ...] = (),
) -> bytes:
    """Options in the order in which Linux writes them, padded to words; at most 40 octets are the caller's care."""
    out = b""
    if mss is not None:
        out += struct.pack("!BBH", 2, 4, mss)
    if timestamps is not None:
        # SACK permitted takes the place of the padding in front of the timestamps.
        out += b"\x04\x02\x08\x0a" if sack_permitted else b"\x01\x01\x08\x0a"
        out += struct.pack("!II", *timestamps)
    elif sack_permitted:
        out += b"\x01\x01\x04\x02"
    if scale is not None:
        out += struct.pack("!BBBB", 1, 3, 3, scale)
    if sack:
        out += struct.pack("!BBBB", 1, 1, 5, 2 + 8 * len(sack))
        out += b"".join(struct.pack("!II", left, right) for left, right in sack)
    return out


def encode(segment: Segment, options: bytes) -> bytes:
    """The header with these options; its checksum is zero."""
    return (
        HEADER.pack(
            segment.source_port,
            segment.destination_port,
            segment.sequence,
            segment.acknowledgement,
            (HEADER_SIZE + len(options)) << 2,
            segment.flags,
            segment.window,
            0,
            0,
        )
        + options
    )

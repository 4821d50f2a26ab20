"""`wgpy capture`: the inner packets of an interface, as a pcapng file."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from wgpy.cli.parser import add_command, count, pause
from wgpy.errors import DeviceError

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to", "enhanced_packet", "interface_description", "section_header"]

_ALL_PROTOCOLS: Final = 0x0003
_OUTGOING: Final = 4
_LARGEST: Final = 65535 + 64
# PACKET_IGNORE_OUTGOING is not used: both directions are wanted. Linux if_packet.h.
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_LINKTYPE_RAW: Final = 101
_RECEIVE_BUFFER: Final = 8 << 20


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "capture",
        _capture,
        "write the packets inside a tunnel to a pcapng file",
        examples="  sudo wgpy capture wg0 inner.pcapng\n"
        "  sudo wgpy capture wg0 --count 100 inner.pcapng\n"
        "  sudo wgpy capture wg0 - | wireshark -k -i -\n",
    )
    parser.add_argument("interface", metavar="IFACE", help="name of the interface")
    parser.add_argument("file", metavar="FILE", help="is replaced; - for standard output")
    parser.add_argument("--count", type=count(10**12), metavar="N", help="end after so many packets")
    parser.add_argument("--seconds", type=pause, metavar="N", help="end after so long")


# --- pcapng (draft-ietf-opsawg-pcapng) -------------------------------------------------------------------------------


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def section_header() -> bytes:
    """The block that begins a file."""
    return _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(4, b"wgpy") + _option(0, b""))


def interface_description(name: str) -> bytes:
    """The block of an interface without link layer; times in nanoseconds."""
    head = struct.pack("<HHI", _LINKTYPE_RAW, 0, 0)
    return _block(1, head + _option(2, name.encode()) + _option(9, b"\x09") + _option(0, b""))


def enhanced_packet(packet: bytes, nanoseconds: int, *, is_outgoing: bool) -> bytes:
    """The block of one packet.

    Args:
        packet: IPv4 or IPv6.
        nanoseconds: since 1970.
        is_outgoing: on its way into the tunnel.
    """
    head = struct.pack("<IIIII", 0, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(packet), len(packet))
    flags = _option(2, struct.pack("<I", 2 if is_outgoing else 1)) + _option(0, b"")
    return _block(6, head + packet + bytes(-len(packet) % 4) + flags)


# --- capturing -------------------------------------------------------------------------------------------------------


def _capture(options: argparse.Namespace) -> int:
    with _open_packets(options.interface) as packets:
        if options.file == "-":
            return _write(packets, sys.stdout.buffer, options)
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            return _write(packets, out, options)


def _open_packets(name: str) -> socket.socket:
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError as problem:
        raise DeviceError(problem.errno, "capturing needs CAP_NET_RAW: run this as root") from None
    try:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        packets.bind((name, _ALL_PROTOCOLS))
    except (OSError, UnicodeError) as problem:
        packets.close()
        number = problem.errno if isinstance(problem, OSError) and problem.errno else errno.ENODEV
        raise DeviceError(number, f"{name}: {os.strerror(number)}; `wgpy show` lists the interfaces") from None
    return packets


def _write(packets: socket.socket, out: BinaryIO, options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out.write(section_header() + interface_description(options.interface))
    out.flush()
    is_watched = sys.stderr.isatty()
    end = time.monotonic() + options.seconds if options.seconds else None
    count = shown = 0
    try:
        while options.count is None or count < options.count:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            packets.settimeout(0.2 if left is None else min(0.2, left))
            try:
                packet, address = packets.recvfrom(_LARGEST)
            except TimeoutError:
                out.flush()  # for whoever reads along
            else:
                out.write(enhanced_packet(packet, time.time_ns(), is_outgoing=address[2] == _OUTGOING))
                count += 1
            if is_watched and count >= shown + 100:
                shown = count
                print(f"\r{count} packets", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    out.flush()
    _, lost = struct.unpack("II", packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(f"{chr(13) if is_watched else ''}{count} packets written, {lost} lost in the kernel", file=sys.stderr)
    return 0

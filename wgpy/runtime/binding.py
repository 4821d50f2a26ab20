"""Binding the UDP sockets of a device: one port, a socket for data and one for everything else, in each family.

    datagram -> cBPF: transport data?  yes -> socket 0 .. N-1       of the worker that its receiver index names
                                       no  -> socket N .. 2N-1      the doors; initiations by their source

The kernel steers by message type, so a flood of handshake messages fills the buffer of a door and never that of the
data, and whoever reads them decides how much time they get. Where a kernel does not steer there is no door, and one
socket takes both.

Source: Linux socket(7), SO_ATTACH_REUSEPORT_CBPF; Documentation/networking/filter.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import socket
import struct
from typing import Final, NamedTuple

from wgpy.errors import DeviceError

__all__ = ["MARK", "Member", "bind_members", "explained"]

_log = logging.getLogger("wgpy.device")

# All 32 bits of a mark are the operator's; as a number, Python would take 31.
MARK: Final = struct.Struct("=I")

_IP_PKTINFO, _IP_RECVTOS, _IP_MTU_DISCOVER = 8, 13, 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT: Final = 0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_BUFFER_SIZE: Final = 7 * 2**20
# Some thousand messages: what waits longer than its sender does is not worth reading.
_DOOR_BUFFER_SIZE: Final = 2**20
_PORT_RETRIES: Final = 100


class Member(NamedTuple):
    """The sockets of one worker; None where the family is missing, or the door is.

    Attributes:
        v4: takes transport data over IPv4; without a door, everything.
        v6: likewise over IPv6.
        door4: takes handshake messages over IPv4.
        door6: likewise over IPv6.
    """

    v4: socket.socket | None
    v6: socket.socket | None
    door4: socket.socket | None = None
    door6: socket.socket | None = None

    def close(self) -> None:
        """Close them all."""
        for one in self:
            if one is not None:
                one.close()


def bind_members(port: int, count: int, *, fwmark: int, interface: str | None) -> list[Member]:
    """Bind both families to one port, for several workers.

    Args:
        port: 0 for any that is free in both families.
        count: of workers, 1 to 128.
        fwmark: 0 for none.
        interface: or VRF that everything leaves and enters by; None for whatever the routes say.

    Raises:
        DeviceError: the port is taken, the mark is not allowed, there is no such interface, or no family at all.
    """
    for attempt in range(_PORT_RETRIES):
        four: list[socket.socket] = []
        try:
            four = _bind_group(4, port, count, fwmark, interface)
            six = _bind_group(6, port or (four[0].getsockname()[1] if four else 0), count, fwmark, interface)
        except OSError as error:
            _close(four)
            if error.errno != errno.EADDRINUSE or port or attempt == _PORT_RETRIES - 1:
                raise explained(error, port, fwmark, interface) from None
        else:
            break
    if not four and not six:
        raise DeviceError(errno.EAFNOSUPPORT, "this host has neither IPv4 nor IPv6 sockets")

    def nth(group: list[socket.socket], number: int) -> socket.socket | None:
        return group[number] if number < len(group) else None

    return [Member(nth(four, n), nth(six, n), nth(four, count + n), nth(six, count + n)) for n in range(count)]


def _bind_group(version: int, port: int, count: int, fwmark: int, interface: str | None) -> list[socket.socket]:
    """Sockets for the data of each worker, then their doors; none where the family is missing.

    Raises:
        OSError: the port is taken, the mark is not allowed; or several workers cannot share it.
    """
    first = _bind(version, port, fwmark, interface, shares=False)
    if first is None:
        return []
    group = [first]
    try:
        port = first.getsockname()[1]
        # It was bound alone, so nobody else is there. It takes the company of its own from now on, and of nobody else:
        # whoever comes later asks for the port alone, as this one did, and is refused.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(2 * count - 1):
            member = _bind(version, port, fwmark, interface, shares=True)
            assert member is not None, "the family was there a moment ago"
            group.append(member)
        for door in group[count:]:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DOOR_BUFFER_SIZE)
        _attach(first, _steering(version, count))
    except OSError as error:
        if count > 1:
            _close(group)
            raise
        _close(group[1:])
        _log.info("handshakes and data share a socket: the kernel does not steer (%s)", error.strerror)
        return group[:1]
    except BaseException:
        _close(group)
        raise
    return group


def _close(group: list[socket.socket]) -> None:
    for one in group:
        one.close()


def _bind(version: int, port: int, fwmark: int, interface: str | None, *, shares: bool) -> socket.socket | None:
    """A bound socket; None where the family is missing.

    Raises:
        OSError: the port is taken, the mark is not allowed.
    """
    try:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _configure(bound)
            if shares:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if fwmark:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK.pack(fwmark))
            if interface is not None:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            bound.bind(("", port) if version == 4 else ("::", port))
        except BaseException:
            bound.close()
            raise
        return bound
    except OSError as error:
        # EADDRNOTAVAIL: IPv6 is compiled in and switched off.
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return None
        raise


def _configure(one: socket.socket) -> None:
    set_option = one.setsockopt
    for option, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        with contextlib.suppress(OSError):
            set_option(socket.SOL_SOCKET, option, _BUFFER_SIZE)
            set_option(socket.SOL_SOCKET, forced, _BUFFER_SIZE)
    if one.family == socket.AF_INET:
        set_option(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        set_option(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        # Outer packets may be fragmented, as the kernel's own driver lets them be.
        set_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        set_option(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        set_option(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        set_option(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        set_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)


# --- steering --------------------------------------------------------------------------------------------------------

_LOAD_WORD, _LOAD_HALF, _LOAD_OCTET = 0x20, 0x28, 0x30
_JUMP, _JUMP_EQUAL = 0x05, 0x15
_KEEP, _ADD_KEPT, _ADD, _MODULO, _GIVE = 0x07, 0x0C, 0x04, 0x94, 0x16
# Offsets from here on count from the IP header instead of the payload (SKF_NET_OFF).
_IP_HEADER: Final = 0xFFF00000


def _steering(version: int, count: int) -> bytes:
    """A classic BPF program that says, from the payload, which socket of the group a datagram belongs to.

    The index of a session or handshake is little-endian, so its first octet in the datagram is its lowest; see
    `Shard.may_use`. Initiations, which carry none, go by address and port of their source, so that whoever gets a
    cookie comes back to where it was made. What is too short for all this goes to the first socket.
    """
    source, port = (12, 20) if version == 4 else (20, 40)
    program = [
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_EQUAL, 13, 0, 0x04000000),  # transport data
        (_JUMP_EQUAL, 8, 0, 0x03000000),  # cookie reply
        (_JUMP_EQUAL, 5, 0, 0x02000000),  # response
        (_LOAD_WORD, 0, 0, _IP_HEADER + source),
        (_KEEP, 0, 0, 0),
        (_LOAD_HALF, 0, 0, _IP_HEADER + port),
        (_ADD_KEPT, 0, 0, 0),
        (_JUMP, 0, 0, 3),
        (_LOAD_OCTET, 0, 0, 8),
        (_JUMP, 0, 0, 1),
        (_LOAD_OCTET, 0, 0, 4),
        (_MODULO, 0, 0, count),
        (_ADD, 0, 0, count),
        (_GIVE, 0, 0, 0),
        (_LOAD_OCTET, 0, 0, 4),
        (_MODULO, 0, 0, count),
        (_GIVE, 0, 0, 0),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _attach(one: socket.socket, program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program)
    request = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, request)


# --- for people ------------------------------------------------------------------------------------------------------


def explained(error: OSError, port: int, fwmark: int, interface: str | None = None) -> DeviceError:
    """What a refusal means, and what to do."""
    match error.errno:
        case errno.ENODEV if interface is not None:
            return DeviceError(error.errno, f"there is no interface {interface!r} to bind to: `ip link` lists them")
        case errno.EPERM if interface is not None and not fwmark:
            return DeviceError(error.errno, f"to bind to {interface!r} needs CAP_NET_RAW")
        case errno.EADDRINUSE:
            return DeviceError(error.errno, f"UDP port {port} is taken: choose another, or stop who has it")
        case errno.EPERM if fwmark:
            return DeviceError(error.errno, f"fwmark {fwmark:#x} needs CAP_NET_ADMIN")
        case errno.EACCES:
            return DeviceError(error.errno, f"UDP port {port} needs CAP_NET_BIND_SERVICE: choose one above 1023")
        case _:
            return DeviceError(error.errno, f"UDP socket: {error.strerror}")

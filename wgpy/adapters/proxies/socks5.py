"""SOCKS5: CONNECT and UDP ASSOCIATE, with user and password where the gate asks for them.

    client                                            proxy
    05 n METHODS                                 ->
                                                 <-   05 METHOD
    01 len USER len PASSWORD   (method 02)       ->
                                                 <-   01 STATUS
    05 COMMAND 00 TYPE ADDRESS PORT              ->
                                                 <-   05 REPLY 00 TYPE ADDRESS PORT
    octets both ways (CONNECT), or datagrams with a header to the address of the reply (UDP ASSOCIATE)

Names are handed to the tunnel as they are (curl's `socks5h`). BIND is answered with "command not supported".

Source: RFC 1928, RFC 1929.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy.adapters.net import DIAL_ERRORS, abort
from wgpy.adapters.proxies.gate import DATAGRAM_BUFFER, Refused
from wgpy.adapters.proxies.reading import BufferedStream

if TYPE_CHECKING:
    from wgpy.adapters.net import Address, Datagrams, Net
    from wgpy.adapters.proxies.gate import Gate

__all__ = ["decode_datagram", "encode_datagram", "serve_client"]

_VERSION, _AUTHENTICATION_VERSION = 5, 1
_NO_AUTHENTICATION, _USER_AND_PASSWORD, _NO_ACCEPTABLE_METHOD = 0x00, 0x02, 0xFF
_CONNECT, _UDP_ASSOCIATE = 1, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
# RFC 1928 section 6, REP.
_SUCCEEDED, _GENERAL_FAILURE, _NOT_ALLOWED, _NETWORK_UNREACHABLE, _HOST_UNREACHABLE = 0, 1, 2, 3, 4
_REFUSED, _TTL_EXPIRED, _COMMAND_NOT_SUPPORTED, _ADDRESS_TYPE_NOT_SUPPORTED = 5, 6, 7, 8
_REPLIES: Final = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ENETUNREACH: _NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: _HOST_UNREACHABLE,
    errno.ETIMEDOUT: _TTL_EXPIRED,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
}
_ANY: Final = ("0.0.0.0", 0)
_LARGEST_DATAGRAM: Final = 65535
_NAMES_REMEMBERED: Final = 256
# At once, of one association; and how much waits for one of them, the oldest dropped.
_NAMES_ASKED_FOR: Final = 32
_DATAGRAMS_WAITING: Final = 16


async def serve_client(stream: Any, net: Net, gate: Gate) -> None:
    """Speak with one client until it has gone.

    Raises:
        Refused: it was turned away.
    """
    client = BufferedStream(stream)
    with gate.greeting():
        await _authenticate(client, gate)
        version, command, _ = await client.read_exactly(3)
        if version != _VERSION:
            raise Refused("malformed")
        target = await _read_address(client)
        if target is None:
            await _reply(client, _ADDRESS_TYPE_NOT_SUPPORTED)
            raise Refused("malformed")
    match command:
        case _ if command == _CONNECT:
            await _connect(client, target, net, gate)
        case _ if command == _UDP_ASSOCIATE and isinstance(stream, trio.SocketStream):
            await _associate(client, stream, target[1], net, gate)
        case _:
            await _reply(client, _COMMAND_NOT_SUPPORTED)
            raise Refused("command not supported")


async def _authenticate(client: BufferedStream, gate: Gate) -> None:
    version, count = await client.read_exactly(2)
    if version != _VERSION:
        raise Refused("malformed")
    offered = await client.read_exactly(count)
    wanted = _USER_AND_PASSWORD if gate.credentials else _NO_AUTHENTICATION
    if wanted not in offered:
        await client.send_all(bytes([_VERSION, _NO_ACCEPTABLE_METHOD]))
        raise Refused("not authenticated")
    await client.send_all(bytes([_VERSION, wanted]))
    if gate.credentials is None:
        return
    version, length = await client.read_exactly(2)
    user = await client.read_exactly(length)
    password = await client.read_exactly((await client.read_exactly(1))[0])
    is_right = version == _AUTHENTICATION_VERSION and gate.credentials.match(user, password)
    await client.send_all(bytes([_AUTHENTICATION_VERSION, 0 if is_right else 1]))
    if not is_right:
        raise Refused("not authenticated")


async def _read_address(client: BufferedStream) -> Address | None:
    (kind,) = await client.read_exactly(1)
    if kind == _NAME:
        (length,) = await client.read_exactly(1)
        octets = await client.read_exactly(length + 2)
    elif kind in (_IPV4, _IPV6):
        octets = await client.read_exactly((4 if kind == _IPV4 else 16) + 2)
    else:
        return None
    return _address(kind, octets)


def _address(kind: int, octets: bytes | memoryview) -> Address | None:
    """Host and port, None if it cannot be one."""
    host, port = bytes(octets[:-2]), int.from_bytes(octets[-2:])
    if kind != _NAME:
        return str(ipaddress.ip_address(host)), port
    if not host or not host.isascii() or any(octet <= 0x20 for octet in host):
        return None
    return host.decode(), port


def _packed(address: Address) -> bytes:
    """TYPE, ADDRESS and PORT."""
    host, port = address
    try:
        octets = ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        name = host.encode()
        return bytes([_NAME, len(name)]) + name + port.to_bytes(2)
    return bytes([_IPV4 if len(octets) == 4 else _IPV6]) + octets + port.to_bytes(2)


async def _reply(client: BufferedStream, reply: int, bound: Address = _ANY) -> None:
    await client.send_all(bytes([_VERSION, reply, 0]) + _packed(bound))


# --- CONNECT ---------------------------------------------------------------------------------------------------------


async def _connect(client: BufferedStream, target: Address, net: Net, gate: Gate) -> None:
    try:
        inside = await net.open_tcp_stream(*target)
    except DIAL_ERRORS as problem:
        await _reply(client, _reply_of(gate.failed(problem)))
        return
    try:
        await _reply(client, _SUCCEEDED)
    except BaseException:
        await abort(inside)
        raise
    await gate.relay(client, inside)


def _reply_of(error: OSError) -> int:
    if isinstance(error, socket.gaierror):  # its numbers are of another kind
        return _HOST_UNREACHABLE
    return _REPLIES.get(error.errno or 0, _GENERAL_FAILURE)


# --- UDP ASSOCIATE ---------------------------------------------------------------------------------------------------


def decode_datagram(datagram: bytes) -> tuple[Address, bytes] | None:
    """Where a datagram shall go, and its payload; None for fragments and for what is malformed (RFC 1928 section 7).

    Example:
        >>> decode_datagram(bytes.fromhex("000000010a000035003568656c6c6f"))
        (('10.0.0.53', 53), b'hello')
    """
    if len(datagram) < 5 or datagram[2] != 0:
        return None
    kind = datagram[3]
    start, length = (5, datagram[4]) if kind == _NAME else (4, {_IPV4: 4, _IPV6: 16}.get(kind, -1))
    end = start + length + 2
    if length < 0 or len(datagram) < end:
        return None
    address = _address(kind, datagram[start:end])
    return None if address is None else (address, datagram[end:])


def encode_datagram(source: Address, payload: bytes) -> bytes:
    """A datagram with the header that says where it came from."""
    return bytes(3) + _packed(source) + payload


async def _associate(client: BufferedStream, control: trio.SocketStream, port: int, net: Net, gate: Gate) -> None:
    """Pass datagrams on for as long as the TCP connection of the client stands."""
    here, there = control.socket.getsockname()[0], control.socket.getpeername()[0]
    family = control.socket.family
    with trio.socket.socket(family, socket.SOCK_DGRAM) as outside:
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
        await outside.bind((here, 0))
        try:
            inside: Datagrams = await net.open_udp()
        except DIAL_ERRORS as problem:
            await _reply(client, _reply_of(gate.failed(problem)))
            return
        try:
            await _reply(client, _SUCCEEDED, outside.getsockname()[:2])
            relay = _DatagramRelay(outside, inside, net, gate, client_host=there, client_port=port)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run_out, nursery)
                nursery.start_soon(relay.run_in)
                while await control.receive_some():
                    pass
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await inside.aclose()


class _DatagramRelay:
    """The datagrams of one association."""

    def __init__(
        self,
        outside: trio.socket.SocketType,
        inside: Datagrams,
        net: Net,
        gate: Gate,
        *,
        client_host: str,
        client_port: int,
    ) -> None:
        self._outside, self._inside, self._net, self._gate = outside, inside, net, gate
        self._host = client_host
        # Zero when the client does not know yet: its first datagram says.
        self._port = client_port
        self._client: Any = None
        self._names: dict[Address, Address] = {}
        # Datagrams for names that are being asked for.
        self._waiting: dict[Address, deque[bytes]] = {}

    async def run_out(self, nursery: trio.Nursery) -> None:
        """From the client into the tunnel; names are looked up beside it, so that none keeps the others waiting."""
        while True:
            datagram, sender = await self._outside.recvfrom(_LARGEST_DATAGRAM)
            # RFC 1928 section 7: drop what comes from anybody but the client of this association.
            if sender[0] != self._host or (self._port and sender[1] != self._port):
                continue
            self._port, self._client = sender[1], sender
            decoded = decode_datagram(datagram)
            if decoded is None:
                continue
            target, payload = decoded
            known = self._known(target)
            if known is not None:
                await self._send(payload, known)
            elif target in self._waiting:
                self._waiting[target].append(payload)
            elif len(self._waiting) < _NAMES_ASKED_FOR:
                self._waiting[target] = deque([payload], maxlen=_DATAGRAMS_WAITING)
                nursery.start_soon(self._look_up, target)

    async def _send(self, payload: bytes, target: Address) -> None:
        with contextlib.suppress(OSError):  # a datagram may be lost
            await self._inside.send_to(payload, target)
            self._gate.datagrams.up += 1

    async def run_in(self) -> None:
        """From the tunnel to the client."""
        while True:
            try:
                payload, source = await self._inside.receive_from()
            except OSError:  # news by ICMP about one of the datagrams
                continue
            if self._client is not None:
                with contextlib.suppress(OSError):
                    await self._outside.sendto(encode_datagram(source, payload), self._client)
                    self._gate.datagrams.down += 1

    def _known(self, target: Address) -> Address | None:
        """The address of a target, if nobody need be asked for it."""
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(target[0])
            return target
        return self._names.get(target)

    async def _look_up(self, target: Address) -> None:
        """Ask for a name in the tunnel, and send what waited for it."""
        try:
            found = await self._net.getaddrinfo(*target)
        except OSError as problem:
            self._gate.failed(problem)
            return
        finally:
            waiting = self._waiting.pop(target)
        if len(self._names) >= _NAMES_REMEMBERED:
            self._names.pop(next(iter(self._names)))
        address = self._names[target] = found[0][4][:2]
        for payload in waiting:
            await self._send(payload, address)

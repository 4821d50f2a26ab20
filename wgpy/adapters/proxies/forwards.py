"""Forwards: a port here that is a port there, in both directions, TCP and UDP.

-L [BIND:]PORT:HOST:HOSTPORT      here PORT, there HOST:HOSTPORT       as in ssh
-R [BIND:]PORT:HOST:HOSTPORT      in the tunnel PORT, here HOST:HOSTPORT
--udp [BIND:]PORT:HOST:HOSTPORT   like -L, for datagrams
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from wgpy import foreign
from wgpy.adapters.net import DIAL_ERRORS, abort, ends_of
from wgpy.errors import ConfigError
from wgpy.runtime.groups import caught

if TYPE_CHECKING:
    from wgpy.adapters.net import Address, Datagrams, Net
    from wgpy.adapters.proxies.gate import Gate

__all__ = [
    "Forward",
    "forward_datagrams",
    "forward_from_tunnel",
    "forward_into_tunnel",
    "is_loopback",
    "parse_bind",
    "proxy_header",
]

_LARGEST_DATAGRAM: Final = 65535
# Datagrams that wait for a mapping to be made; UDP may lose the others.
_WAITING: Final = 64


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _split(text: str, what: str) -> list[str]:
    """The parts between colons, with the colons of `[ADDRESS]` left alone."""
    parts: list[str] = []
    rest = text
    while rest or not parts:
        if rest.startswith("["):
            inside, closed, rest = rest[1:].partition("]")
            if not closed or (rest and not rest.startswith(":")):
                raise ConfigError(f"expected {what}, got {text!r}")
            parts.append(inside)
            rest = rest[1:]
        else:
            part, colon, rest = rest.partition(":")
            parts.append(part)
            if colon and not rest:
                parts.append("")
    return parts


def _port(text: str, what: str, *, least: int) -> int:
    try:
        return foreign.decimal(text, foreign.MAX_PORT, least=least)
    except ConfigError:
        raise ConfigError(
            f"expected {what} with ports from {least} to {foreign.MAX_PORT}, got {foreign.quoted(text)} as a port"
        ) from None


def parse_bind(text: str) -> Address:
    """Where to listen: PORT on the loopback address, ADDRESS:PORT or [ADDRESS]:PORT.

    Raises:
        ConfigError: something else.

    Example:
        >>> parse_bind("1080"), parse_bind("[::]:1080")
        (('127.0.0.1', 1080), ('::', 1080))
    """
    what = "PORT or ADDRESS:PORT"
    parts = _split(text, what)
    if len(parts) > 2:
        raise ConfigError(f"expected {what}, got {text!r}; an IPv6 address stands in brackets")
    host = parts[0] if len(parts) == 2 else ""
    return host or "127.0.0.1", _port(parts[-1], what, least=0)


@dataclass(frozen=True, slots=True)
class Forward:
    """One port that leads to another.

    Attributes:
        bind: where to listen; None for the loopback address here, for every address of ours in the tunnel.
        port: to listen on, 0 for any.
        target: where it leads.
    """

    bind: str | None
    port: int
    target: Address

    @classmethod
    def parse(cls, text: str) -> Forward:
        """Read `[BIND:]PORT:HOST:HOSTPORT`; IPv6 addresses stand in brackets, and `*` is every address.

        Raises:
            ConfigError: something else.

        Example:
            >>> Forward.parse("5432:db.internal:5432")
            Forward(bind=None, port=5432, target=('db.internal', 5432))
        """
        what = "[BIND:]PORT:HOST:HOSTPORT"
        parts = _split(text, what)
        if len(parts) not in (3, 4) or not parts[-2]:
            raise ConfigError(f"expected {what}, got {text!r}; an IPv6 address stands in brackets")
        bind = parts[0] if len(parts) == 4 else None
        return cls(bind or None, _port(parts[-3], what, least=0), (parts[-2], _port(parts[-1], what, least=1)))


async def forward_into_tunnel(stream: Any, target: Address, net: Net, gate: Gate) -> None:
    """Join a client here with a host in the tunnel; a client of a host that cannot be reached is reset."""
    try:
        inside = await net.open_tcp_stream(*target)
    except DIAL_ERRORS as problem:
        gate.failed(problem)
        await abort(stream)
        return
    await gate.relay(stream, inside)


def proxy_header(inside: Any) -> bytes:
    """Who a client in the tunnel is, as a server out here learns it: version 1 of HAProxy's PROXY protocol.

    Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.1.
    """
    (here, port), (client, client_port) = ends_of(inside)
    family = "TCP6" if ":" in client else "TCP4"
    return f"PROXY {family} {client} {here} {client_port} {port}\r\n".encode()


async def forward_from_tunnel(inside: Any, target: Address, gate: Gate, *, names_client: bool = False) -> None:
    """Join a client in the tunnel with a host out here, which sees us as its peer unless the client is named to it."""
    try:
        # The host's resolver is right here: the target is on the host's side.
        stream = await trio.open_tcp_stream(*target)
    except OSError as problem:
        gate.failed(problem)
        await abort(inside)
        return
    if names_client:
        try:
            await stream.send_all(proxy_header(inside))
        except BaseException:
            await abort(stream)
            raise
    await gate.relay(stream, inside)


# --- datagrams -------------------------------------------------------------------------------------------------------


async def forward_datagrams(outside: trio.socket.SocketType, target: Address, net: Net, gate: Gate) -> None:
    """Pass datagrams on until cancelled, then close: one socket in the tunnel per client, so that answers find back."""
    flows: OrderedDict[Any, _Flow] = OrderedDict()
    with outside:
        async with trio.open_nursery() as nursery:
            while True:
                datagram, client = await outside.recvfrom(_LARGEST_DATAGRAM)
                flow = flows.get(client)
                if flow is None:
                    if len(flows) >= gate.limits.datagram_flows:
                        _, idle_longest = flows.popitem(last=False)
                        idle_longest.scope.cancel()
                        gate.refused["too many datagram flows"] += 1
                    flow = flows[client] = _Flow()
                    nursery.start_soon(_run_flow, flow, client, outside, target, net, gate, flows)
                flows.move_to_end(client)
                flow.scope.deadline = trio.current_time() + gate.limits.datagram_timeout
                with contextlib.suppress(trio.WouldBlock):
                    flow.waiting.send_nowait(datagram)


class _Flow:
    """The datagrams of one client."""

    def __init__(self) -> None:
        self.waiting: trio.MemorySendChannel[bytes]
        self.waiting, self.arriving = trio.open_memory_channel[bytes](_WAITING)
        self.scope = trio.CancelScope()


async def _run_flow(
    flow: _Flow,
    client: Any,
    outside: trio.socket.SocketType,
    target: Address,
    net: Net,
    gate: Gate,
    flows: OrderedDict[Any, _Flow],
) -> None:
    async def answer(inside: Datagrams) -> None:
        while True:
            try:
                datagram = await inside.receive()
            except OSError:  # news by ICMP: the port is closed, perhaps not for long
                continue
            flow.scope.deadline = trio.current_time() + gate.limits.datagram_timeout
            with contextlib.suppress(OSError):
                await outside.sendto(datagram, client)
                gate.datagrams.down += 1

    try:
        with flow.scope:
            try:
                inside: Datagrams = await net.open_udp(remote=target)
            except DIAL_ERRORS as problem:
                gate.failed(problem)
                return
            try:
                # When the tunnel ends, whoever holds it says so.
                with caught(trio.BrokenResourceError, trio.ClosedResourceError):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(answer, inside)
                        async for datagram in flow.arriving:
                            with contextlib.suppress(OSError):
                                await inside.send(datagram)
                                gate.datagrams.up += 1
            finally:
                with trio.CancelScope(shield=True):
                    await inside.aclose()
    finally:
        if flows.get(client) is flow:
            del flows[client]

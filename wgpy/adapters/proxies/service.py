"""A proxy at work: opens the doors, says that it is ready, and closes them in good order.

open every door -> READY=1 -> serve -> stop is asked for -> no new clients, the others may finish -> end
"""

from __future__ import annotations

import errno
import functools
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from wgpy import foreign
from wgpy.adapters.proxies import http, socks5
from wgpy.adapters.proxies.forwards import forward_datagrams, forward_from_tunnel, forward_into_tunnel
from wgpy.adapters.proxies.gate import DATAGRAM_BUFFER, Gate, Limits
from wgpy.adapters.proxies.observe import Observer, notify_systemd, watch_systemd
from wgpy.errors import DeviceError
from wgpy.runtime.groups import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wgpy.adapters.net import Address, Net
    from wgpy.adapters.proxies.forwards import Forward

__all__ = ["Doors", "run_service"]

_HERE = "127.0.0.1"
# Readiness and metrics are for a few probes.
_OBSERVERS = Limits(connections=16)


@dataclass(frozen=True, slots=True)
class Doors:
    """What shall be open.

    Attributes:
        socks5: where SOCKS5 is spoken.
        http: where an HTTP proxy is.
        local: ports here that lead into the tunnel.
        remote: ports in the tunnel that lead here.
        names_clients: servers that remote ports lead to are told who their client is (PROXY protocol).
        udp: UDP ports here that lead into the tunnel.
        observers: where `/ready` and `/metrics` are answered.
    """

    socks5: tuple[Address, ...] = ()
    http: tuple[Address, ...] = ()
    local: tuple[Forward, ...] = ()
    remote: tuple[Forward, ...] = ()
    names_clients: bool = False
    udp: tuple[Forward, ...] = ()
    observers: tuple[Address, ...] = ()


async def run_service(
    doors: Doors,
    net: Net,
    gate: Gate,
    *,
    stop: trio.Event,
    observer: Observer | None = None,
    grace: float = 10.0,
    on_open: Callable[[list[str]], None] = lambda _: None,
) -> None:
    """Serve until asked to stop, then let clients finish for a while.

    Args:
        doors: what to open.
        net: the tunnel.
        gate: limits, credentials and counters of every door.
        stop: set it to begin the end.
        observer: answers at `doors.observers`.
        grace: seconds that connections may take to finish.
        on_open: called once, with one line per door that says where it is.

    Raises:
        DeviceError: an address to listen on is taken or not ours.
    """
    with unwrapped():
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as acceptors:
                lines = await _open(doors, net, gate, acceptors, connections, observer)
                acceptors.start_soon(watch_systemd)
                if observer is not None:
                    await acceptors.start(observer.run)
                    observer.is_open = True
                on_open(lines)
                notify_systemd("READY=1\nSTATUS=" + "; ".join(lines))
                await stop.wait()
                notify_systemd(f"STOPPING=1\nSTATUS=draining {gate.open} connections")
                if observer is not None:
                    observer.is_open = False
                acceptors.cancel_scope.cancel()
            with trio.move_on_after(grace):
                await gate.wait_idle()
            connections.cancel_scope.cancel()


async def _open(
    doors: Doors,
    net: Net,
    gate: Gate,
    acceptors: trio.Nursery,
    connections: trio.Nursery,
    observer: Observer | None,
) -> list[str]:
    lines: list[str] = []

    async def serve(label: str, host: str, port: int, handler: Any, leads_to: str = "", *, by: Gate = gate) -> None:
        listeners = await _listen(host, port)
        for listener in listeners:
            lines.append(f"{label} {_shown(listener.socket.getsockname())}{leads_to}")
        acceptors.start_soon(by.serve, listeners, handler, connections)

    for host, port in doors.socks5:
        await serve("socks5", host, port, functools.partial(socks5.serve_client, net=net, gate=gate))
    for host, port in doors.http:
        await serve("http", host, port, functools.partial(http.serve_client, net=net, gate=gate))
    for forward in doors.local:
        handler = functools.partial(forward_into_tunnel, target=forward.target, net=net, gate=gate)
        await serve("local", _bind(forward), forward.port, handler, f" -> {_shown(forward.target)}")
    for forward in doors.remote:
        inside = await net.open_tcp_listeners(forward.port, host=None if forward.bind == "*" else forward.bind)
        lines.append(f"remote {forward.bind or '*'}:{forward.port} -> {_shown(forward.target)}")
        handler = functools.partial(
            forward_from_tunnel, target=forward.target, gate=gate, names_client=doors.names_clients
        )
        acceptors.start_soon(gate.serve, inside, handler, connections)
    for forward in doors.udp:
        outside = await _open_datagrams(_bind(forward), forward.port)
        lines.append(f"udp {_shown(outside.getsockname())} -> {_shown(forward.target)}")
        connections.start_soon(forward_datagrams, outside, forward.target, net, gate)
    if observer is not None:
        for host, port in dict.fromkeys(doors.observers):
            await serve("observe", host, port, observer.serve_client, by=Gate(limits=_OBSERVERS))
    return lines


def _bind(forward: Forward) -> str:
    return "::" if forward.bind == "*" else forward.bind or _HERE


def _shown(address: Sequence[Any]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except (OSError, UnicodeError) as problem:
        raise _cannot_listen(host, port, problem) from None


async def _open_datagrams(host: str, port: int) -> trio.socket.SocketType:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    outside = trio.socket.socket(family, socket.SOCK_DGRAM)
    outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
    try:
        await outside.bind((host, port))
    except (OSError, UnicodeError) as problem:
        outside.close()
        raise _cannot_listen(host, port, problem) from None
    return outside


def _cannot_listen(host: str, port: int, problem: OSError | UnicodeError) -> DeviceError:
    # What cannot be a name at all is a UnicodeError, before anybody looks for its address.
    number, said = (
        (problem.errno, problem.strerror)
        if isinstance(problem, OSError)
        else (errno.EADDRNOTAVAIL, "neither an address nor a name")
    )
    return DeviceError(number, f"cannot listen on {_shown((foreign.quoted(host)[1:-1], port))}: {said}")

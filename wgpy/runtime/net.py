"""Net: dial, listen, ping and resolve through the tunnel, with the words of trio.

    Net -> Resolver (names) -> Stack and Icmp (sockets without I/O) -> NetStream, NetListener, NetUdp

Everything here needs no privilege: packets are made and read in this process, and leave it encrypted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import trio

from wgpy import foreign
from wgpy.errors import ConfigError, DropReason
from wgpy.netstack.addresses import failure, parsed_port
from wgpy.netstack.constants import BACKLOG
from wgpy.netstack.tcp.keepalive import checked_user_timeout
from wgpy.runtime import world
from wgpy.runtime.datagrams import NetUdp
from wgpy.runtime.listeners import NetListener
from wgpy.runtime.pcap import PcapWriter
from wgpy.runtime.resolver import Resolver
from wgpy.runtime.streams import NetStream
from wgpy.wire import ip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.netstack.icmp import Icmp
    from wgpy.netstack.statistics import StackStatistics
    from wgpy.netstack.tcp.host import Fallback
    from wgpy.netstack.tcp.keepalive import Keepalive
    from wgpy.netstack.udp import Address
    from wgpy.runtime.netdevice import NetDevice

__all__ = ["Net"]

AddressInfo: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]"

# What the engine says of a destination, as a kernel would say it to who dials there.
_ERRNO_OF = {
    DropReason.NO_PEER_FOR_DESTINATION: errno.ENETUNREACH,
    DropReason.NO_ENDPOINT: errno.EHOSTUNREACH,
    DropReason.INTERFACE_DOWN: errno.ENETDOWN,
}


class Net:
    """The network at the other end of a tunnel.

    Attributes:
        addresses: ours, in text form.
    """

    def __init__(
        self,
        device: NetDevice,
        icmp: Icmp,
        *,
        addresses: Sequence[str],
        servers: Sequence[str] = (),
        search: Sequence[str] = (),
        refusal: Callable[[bytes], DropReason | None] = lambda _: None,
    ) -> None:
        """Use `open_tunnel`.

        Args:
            device: of the stack.
            icmp: of the same stack, with its datagram sockets.
            addresses: ours.
            servers: name servers, addresses.
            search: domains in which short names are looked for.
            refusal: why the tunnel would refuse a packet for an address.
        """
        self._device = device
        self._icmp = icmp
        self._refusal = refusal
        self._resolver = Resolver(self, servers, search)
        self.addresses = tuple(addresses)
        self._versions = [
            version for version in (6, 4) if any((":" in address) == (version == 6) for address in addresses)
        ]

    # --- TCP ---------------------------------------------------------------------------------------------------------

    async def open_tcp_stream(
        self,
        host: str,
        port: int,
        *,
        local: str | None = None,
        happy_eyeballs_delay: float | None = 0.25,
        keepalive: Keepalive | None = None,
        user_timeout: float | None = None,
    ) -> NetStream:
        """Connect to a host through the tunnel.

        Args:
            host: a name, resolved inside the tunnel, or an address.
            port: of the host.
            local: our address to come from; None for the first of the family.
            happy_eyeballs_delay: seconds until the next address of the host is tried beside the last (RFC 8305); None
                to wait until that one has failed.
            keepalive: how to find out that the host is gone; None for never.
            user_timeout: seconds without an acknowledgement that break the connection, or the attempt to open it; None
                for the usual retries.

        Raises:
            ValueError: the user timeout is no positive time.
            OSError: as the one address says; with several, as the preferred one says, and the causes of all below.
            gaierror: the name has no address.
        """
        self._device.check_open()
        checked_user_timeout(user_timeout)
        connect = functools.partial(self._connect, port=parsed_port(port), local=local, user_timeout=user_timeout)
        addresses = _interleaved(await self._addresses(host, local))
        if len(addresses) == 1:
            stream = await connect(addresses[0])
        else:
            attempts = [functools.partial(connect, address) for address in addresses]
            problem = f"all attempts to connect to {host}:{port} failed"
            stream = await _first_of(attempts, happy_eyeballs_delay, problem)
        if keepalive is not None:
            stream.set_keepalive(keepalive)
        return stream

    def _usable(self, local: str | None) -> list[int]:
        if local is None:
            return self._versions or [6, 4]
        return [6 if ":" in local else 4]

    async def _addresses(self, host: str, local: str | None = None) -> list[str]:
        return self._routable_first(await self._resolver.addresses(host, self._usable(local)))

    def _routable_first(self, addresses: list[str]) -> list[str]:
        """Those that the tunnel leads to before the others (RFC 6724 section 6, rule 1)."""
        return sorted(addresses, key=lambda address: self._refusal_of(address) is not None)

    async def _connect(self, address: str, *, port: int, local: str | None, user_timeout: float | None) -> NetStream:
        self._check_route(address)
        device = self._device
        connection = device.stack.connect_tcp((address, port), world.now(), local=None if local is None else (local, 0))
        if user_timeout is not None:
            connection.set_user_timeout(user_timeout, world.now())
        device.changed()
        try:
            while not connection.is_established:
                await device.until_writable(connection)
                if connection.error is not None:
                    raise connection.error
        except BaseException:
            connection.abort(world.now())
            device.changed()
            raise
        return NetStream(device, connection)

    def _check_route(self, address: str) -> None:
        """Say at once what the tunnel would say later or not at all."""
        problem = self._refusal_of(address)
        if problem is not None:
            raise problem

    def _refusal_of(self, address: str) -> OSError | None:
        octets = ip.from_text(address)
        if self._device.stack.is_local(octets):
            return None
        reason = self._refusal(octets)
        return None if reason is None else failure(_ERRNO_OF[reason], f"{address}: {reason.value}")

    async def open_tcp_listeners(
        self,
        port: int,
        *,
        host: str | None = None,
        backlog: int | None = None,
        keepalive: Keepalive | None = None,
        user_timeout: float | None = None,
    ) -> list[NetListener]:
        """Listen on a port of the tunnel's addresses; one listener serves all of them.

        Args:
            port: 0 for any that is free.
            host: one of our addresses; None for all.
            backlog: connections that may wait to be accepted.
            keepalive: how to find out that the other end of one is gone; None for never.
            user_timeout: seconds without an acknowledgement that break one; None for 15 retries.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL.
            ValueError: the user timeout is no positive time.
        """
        self._device.check_open()
        checked_user_timeout(user_timeout)
        await trio.lowlevel.checkpoint()
        listener = self._device.stack.listen_tcp(port, host=host, backlog=BACKLOG if backlog is None else backlog)
        return [NetListener(self._device, listener, keepalive=keepalive, user_timeout=user_timeout)]

    async def serve_tcp(
        self,
        handler: Callable[[NetStream], Awaitable[object]],
        port: int,
        *,
        host: str | None = None,
        backlog: int | None = None,
        keepalive: Keepalive | None = None,
        user_timeout: float | None = None,
        handler_nursery: trio.Nursery | None = None,
        task_status: trio.TaskStatus[list[NetListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen, and run a handler for every connection; but for one thing, the contract of `trio.serve_tcp`.

        A connection whose handler raises is reset, so that its other end takes nothing cut short for the whole. The
        exception is logged and ends nothing else: who hangs up on a handler must not end the server for all others.
        """
        listeners = await self.open_tcp_listeners(
            port, host=host, backlog=backlog, keepalive=keepalive, user_timeout=user_timeout
        )
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(listener.serve, handler, handler_nursery or nursery)
            task_status.started(listeners)

    def set_fallback_tcp_handler(
        self,
        handler: Callable[[Address, Address], Fallback],
        *,
        backlog: int | None = None,
        keepalive: Keepalive | None = None,
        user_timeout: float | None = None,
    ) -> NetListener:
        """Accept connections for which nobody listens, whatever address they are for.

        Only sources that AllowedIPs permits are ever asked about.

        Args:
            handler: called with the address and port that was dialled, and with those of who dials, before the SYN is
                answered: `Fallback.ACCEPT`, `REFUSE` or `IGNORE`.
            backlog: connections that may wait to be accepted.
            keepalive: as of `open_tcp_listeners`.
            user_timeout: likewise.

        Returns:
            The listener that accepts them; closing it ends this.
        """
        self._device.check_open()
        checked_user_timeout(user_timeout)
        more = BACKLOG if backlog is None else backlog
        listener = self._device.stack.set_fallback_tcp_handler(handler, backlog=more)
        return NetListener(self._device, listener, keepalive=keepalive, user_timeout=user_timeout)

    # --- UDP and ping ------------------------------------------------------------------------------------------------

    async def open_udp(self, *, local: tuple[str | None, int] | None = None, remote: Address | None = None) -> NetUdp:
        """A UDP socket of the tunnel.

        Args:
            local: our address, None for any of ours, and port, 0 for a random one.
            remote: the only host, name or address, and port to talk to.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL; ENETUNREACH and EHOSTUNREACH at once if the tunnel does not lead there.
            gaierror: the name has no address.
        """
        self._device.check_open()
        if remote is None:
            await trio.lowlevel.checkpoint()
        else:
            parsed_port(remote[1])
            host = (await self._addresses(remote[0], local[0] if local else None))[0]
            self._check_route(host)
            remote = host, remote[1]
        return NetUdp(self._device, self._icmp.udp.open(local=local, remote=remote))

    async def ping(self, host: str, *, size: int = 56, timeout: float = 1.0) -> float:  # noqa: ASYNC109 # as `ping -W`
        """Ask a host for an echo; needs no capability.

        Args:
            host: name or address.
            size: octets of payload, up to 65,507.
            timeout: seconds to wait for the answer.

        Returns:
            Seconds from question to answer.

        Raises:
            TimeoutError: no answer.
            OSError: ICMP said that it cannot be reached; or at once, if the tunnel does not lead there.
            gaierror: the name has no address.
        """
        device = self._device
        device.check_open()
        address = (await self._addresses(host))[0]
        self._check_route(address)
        echo = self._icmp.open_echo(address)
        try:
            with trio.move_on_after(timeout):
                payload = bytes(size)
                while not echo.send(1, payload, world.now()):
                    await device.until_writable(echo)
                device.changed()
                while True:
                    answer = echo.receive()
                    if answer is not None:
                        return answer[1]
                    await device.until_readable(echo)
        finally:
            echo.close()
        raise TimeoutError(errno.ETIMEDOUT, f"{os.strerror(errno.ETIMEDOUT)}: no echo from {address} in {timeout} s")

    # --- names -------------------------------------------------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: str,
        port: int | str | None = None,
        family: int = 0,
        type: int = 0,  # as the original
    ) -> list[AddressInfo]:
        """Like `socket.getaddrinfo`, asked of the name servers inside the tunnel, never of the host's resolver.

        Raises:
            gaierror: EAI_NONAME, EAI_FAIL, EAI_AGAIN.
        """
        self._device.check_open()
        versions = {0: self._usable(None), socket.AF_INET: [4], socket.AF_INET6: [6]}.get(family)
        if versions is None:
            raise socket.gaierror(socket.EAI_FAMILY, f"{family} is no family of this tunnel")
        number = _port_number(port)
        kinds = [
            (kind, protocol)
            for kind, protocol in (
                (socket.SOCK_STREAM, socket.IPPROTO_TCP),
                (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
            )
            if type in (0, kind)
        ]
        infos: list[AddressInfo] = []
        for address in self._routable_first(await self._resolver.addresses(host, versions)):
            for kind, protocol in kinds:
                if ":" in address:
                    infos.append((socket.AF_INET6, kind, protocol, "", (address, number, 0, 0)))
                else:
                    infos.append((socket.AF_INET, kind, protocol, "", (address, number)))
        return infos

    def set_dns_servers(self, servers: Sequence[str], *, search: Sequence[str] = ()) -> None:
        """Ask these from now on.

        Args:
            servers: addresses.
            search: domains in which names are looked for that have no dot, or were not found as they are.

        Raises:
            ValueError: one is no address.
        """
        self._resolver.set_servers([ip.to_text(ip.from_text(server)) for server in servers], search)

    # --- for people --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def start_pcap(self, file: BinaryIO | str | os.PathLike[str], *, snaplen: int | None = None) -> Iterator[None]:
        """Write the packets inside the tunnel, in plaintext, to a file while the context lasts.

        Args:
            file: a path, which is replaced and readable by its owner only; or an open binary file, which stays open.
            snaplen: octets kept of each packet, None for all.
        """
        with contextlib.ExitStack() as stack:
            if isinstance(file, str | os.PathLike):
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                file = stack.enter_context(os.fdopen(descriptor, "wb"))
            writer = PcapWriter(file, snaplen=snaplen)
            self._device.watchers.append(writer.write)
            stack.callback(self._device.watchers.remove, writer.write)
            yield

    def statistics(self) -> StackStatistics:
        """Counters of the stack: a frozen value, cheap."""
        return self._device.stack.statistics()


def _port_number(port: int | str | None) -> int:
    if port is None or isinstance(port, int):
        return port or 0
    try:
        return foreign.decimal(port, foreign.MAX_PORT) if port.isdecimal() else socket.getservbyname(port)
    except (OSError, ConfigError):
        raise socket.gaierror(socket.EAI_SERVICE, f"{port!r} is no service") from None


def _interleaved(addresses: list[str]) -> list[str]:
    """The families in turn, beginning with that of the first address (RFC 8305 section 4)."""
    first = [one for one in addresses if (":" in one) == (":" in addresses[0])]
    second = [one for one in addresses if one not in first]
    mixed = [one for pair in zip(first, second, strict=False) for one in pair]
    return mixed + first[len(second) :] + second[len(first) :]


async def _first_of(
    attempts: Sequence[Callable[[], Awaitable[NetStream]]], delay: float | None, message: str
) -> NetStream:
    """Begin one attempt after the other, each as soon as its predecessor failed or took too long; the first wins."""
    winner: NetStream | None = None
    problems: dict[int, OSError] = {}

    async def attempt(number: int, has_failed: trio.Event) -> None:
        nonlocal winner
        try:
            stream = await attempts[number]()
        except OSError as problem:
            problems[number] = problem
            has_failed.set()
            return
        if winner is None:
            winner = stream
            nursery.cancel_scope.cancel()
        else:
            stream.abort()

    async with trio.open_nursery() as nursery:
        for number in range(len(attempts)):
            has_failed = trio.Event()
            nursery.start_soon(attempt, number, has_failed)
            with trio.move_on_after(float("inf") if delay is None else delay):
                await has_failed.wait()
    if winner is None:
        # That of the preferred address stands for all, so that `except ConnectionRefusedError` means what it says.
        first = problems[0]
        raise OSError(first.errno, f"{message}: {first.strerror}") from ExceptionGroup(
            message, [problems[number] for number in sorted(problems)]
        )
    return winner

"""Names to addresses, by the name servers inside the tunnel and nobody else.

`netstack/dns` decides what to ask whom and what to believe; here each ask gets a socket of its own. The resolver of the
host is never used: that would tell the network outside which names are looked up inside.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from wgpy.netstack.constants import DNS_PORT
from wgpy.netstack.dns import Ask, Cache, Outcome, Query, candidates
from wgpy.runtime import world
from wgpy.wire import ip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wgpy.runtime.net import Net

__all__ = ["Resolver"]

# RFC 8305 section 3: how long the second family may keep us waiting when the first has answered.
_RESOLUTION_DELAY: Final = 0.05


class Resolver:
    """Looks names up over the sockets of a tunnel.

    Attributes:
        servers: addresses of name servers.
        search: domains in which names are looked for that have none.
    """

    def __init__(self, net: Net, servers: Sequence[str], search: Sequence[str] = ()) -> None:
        """Ask these servers, through this tunnel."""
        self._net = net
        self.set_servers(servers, search)

    def set_servers(self, servers: Sequence[str], search: Sequence[str]) -> None:
        """Ask these from now on; what others said is forgotten."""
        self.servers = tuple(servers)
        self.search = tuple(search)
        self._cache = Cache()

    async def addresses(self, host: str, versions: Sequence[int]) -> list[str]:
        """The addresses of a host, of the first version first.

        Both families are asked for at once. When one has answered, the other is not waited for long: servers that drop
        questions for AAAA are not rare (RFC 8305 section 3, RFC 4074 section 4.1).

        Args:
            host: a name, or an address, which is returned.
            versions: 4, 6, or both, in order of preference.

        Raises:
            gaierror: EAI_NONAME, EAI_FAIL, EAI_AGAIN.
        """
        try:
            octets = ip.from_text(host)
        except ValueError:
            pass
        else:
            await trio.lowlevel.checkpoint()
            if (4 if len(octets) == 4 else 6) not in versions:
                raise socket.gaierror(socket.EAI_NONAME, f"{host}: no address of the family that was asked for")
            return [ip.to_text(octets)]
        if not self.servers:
            raise socket.gaierror(
                socket.EAI_AGAIN,
                f"cannot resolve {host!r}: names are resolved inside the tunnel, and the configuration has no `DNS =`",
            )
        problem = socket.gaierror(socket.EAI_NONAME, f"{host}: no such name")
        for name in candidates(host, self.search):
            try:
                return await self._addresses_of(name, versions)
            except socket.gaierror as error:
                problem = error
                if error.errno != socket.EAI_NONAME:
                    break  # whether there is such a name is not known, so no other may take its place
        raise problem

    async def _addresses_of(self, name: str, versions: Sequence[int]) -> list[str]:
        now = world.now()
        try:
            known = {version: self._cache.get(name, version, now) for version in versions}
            queries = [
                Query(name, version, self.servers, random=world.random) for version in versions if not known[version]
            ]
        except ValueError as problem:
            raise socket.gaierror(socket.EAI_NONAME, str(problem)) from None
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            if len(queries) < len(versions):
                nursery.cancel_scope.deadline = trio.current_time() + _RESOLUTION_DELAY
            for query in queries:
                nursery.start_soon(self._run, query, nursery.cancel_scope)
        for query in queries:
            self._cache.put(query, world.now())
            known[query.version] = query.addresses
        found = [address for version in versions for address in known[version]]
        if not found:
            raise _error(name, queries)
        return found

    async def _run(self, query: Query, all_queries: trio.CancelScope) -> None:
        news = trio.Event()

        def tell() -> None:
            news.set()

        query.start(world.now())
        async with trio.open_nursery() as nursery:
            while query.outcome is None:
                news = trio.Event()
                for ask in query.asks():
                    nursery.start_soon(self._ask, query, ask, tell)
                left = (query.next_deadline() or 0) - world.now()
                with trio.move_on_after(max(0, left)):
                    await news.wait()
                query.handle_timer(world.now())
            nursery.cancel_scope.cancel()
        if query.addresses:
            all_queries.deadline = min(all_queries.deadline, trio.current_time() + _RESOLUTION_DELAY)
        elif query.outcome is Outcome.NO_NAME:
            all_queries.cancel()  # RFC 2308 section 5: it is said of the name, whatever was asked for

    async def _ask(self, query: Query, ask: Ask, tell: Callable[[], None]) -> None:
        try:
            if ask.over_tcp:
                await self._ask_stream(query, ask)
            else:
                await self._ask_datagram(query, ask, tell)
        except (OSError, trio.BrokenResourceError):
            pass
        query.failed(ask, world.now())
        tell()

    async def _ask_datagram(self, query: Query, ask: Ask, tell: Callable[[], None]) -> None:
        async with await self._net.open_udp(remote=(ask.server, DNS_PORT)) as udp:
            await udp.send(ask.message)
            async for answer, _ in udp:
                query.receive_untrusted(ask, answer, world.now())
                tell()

    async def _ask_stream(self, query: Query, ask: Ask) -> None:
        # RFC 7766 section 8: two octets of length before each message.
        async with await self._net.open_tcp_stream(ask.server, DNS_PORT) as stream:
            await stream.send_all(len(ask.message).to_bytes(2) + ask.message)
            received = bytearray()
            while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2]):
                more = await stream.receive_some()
                if not more:
                    return
                received += more
        query.receive_untrusted(ask, bytes(received[2 : 2 + int.from_bytes(received[:2])]), world.now())


def _error(host: str, queries: Sequence[Query]) -> socket.gaierror:
    outcomes = {query.outcome for query in queries}
    if outcomes & {Outcome.NO_NAME, Outcome.NO_DATA}:
        return socket.gaierror(
            socket.EAI_NONAME, f"{host}: no such name, or no address of a family that the tunnel has"
        )
    if Outcome.SERVER_FAILURE in outcomes:
        return socket.gaierror(socket.EAI_FAIL, f"{host}: every name server refused or failed")
    return socket.gaierror(socket.EAI_AGAIN, f"{host}: no name server answered")

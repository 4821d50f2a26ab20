"""`wgpy ping`: whether a host answers in the tunnel, without an interface and without root."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import add_conf, read_conf
from wgpy.cli.parser import add_command

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

# As ping(8): nobody answered.
_NO_ANSWER = 1


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "ping",
        _ping,
        "send echo requests through the tunnel",
        examples="  wgpy ping office.conf 10.0.0.1\n"
        "  wgpy ping -c 1 -W 5 office.conf intranet.example && echo the tunnel works\n",
    )
    add_conf(parser)
    parser.add_argument("host", metavar="HOST", help="name, resolved in the tunnel, or address")
    parser.add_argument("-c", "--count", metavar="N", type=int, default=4, help="requests (4); 0 for ever")
    parser.add_argument("-i", "--interval", metavar="SECONDS", type=float, default=1.0, help="between requests (1)")
    parser.add_argument("-s", "--size", metavar="OCTETS", type=int, default=56, help="of payload (56)")
    parser.add_argument("-W", "--wait", metavar="SECONDS", type=float, default=5.0, help="for each answer (5)")


def _ping(options: argparse.Namespace) -> int:
    import trio

    return trio.run(_ask, read_conf(options.conf), options)


async def _ask(config: Any, options: argparse.Namespace) -> int:
    import itertools

    import trio

    from wgpy.runtime.tunnel import open_tunnel

    times: list[float] = []
    sent = 0
    async with open_tunnel(config) as tunnel:
        address = (await tunnel.net.getaddrinfo(options.host, 0))[0][4][0]
        shown = options.host if options.host == address else f"{options.host} ({address})"
        print(f"PING {shown}: {options.size} octets of payload", flush=True)
        for number in itertools.count(1):
            begun = trio.current_time()
            sent += 1
            try:
                seconds = await tunnel.net.ping(address, size=options.size, timeout=options.wait)
            except OSError as problem:
                reason = "no answer" if isinstance(problem, TimeoutError) else _said(problem)
                print(f"from {address}: seq={number} {reason}", flush=True)
            else:
                times.append(seconds)
                print(f"{options.size} octets from {address}: seq={number} time={seconds * 1e3:.3f} ms", flush=True)
            if number == options.count:
                break
            await trio.sleep_until(begun + options.interval)
    print(f"{sent} sent, {len(times)} received, {100 * (sent - len(times)) // sent}% lost")
    if times:
        print(f"min/avg/max = {min(times) * 1e3:.3f}/{sum(times) / len(times) * 1e3:.3f}/{max(times) * 1e3:.3f} ms")
    return 0 if times else _NO_ANSWER


def _said(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror) or problem.errno is None:
        return str(problem)
    return os.strerror(problem.errno)

"""`wgpy ping`: whether a host answers in the tunnel, without an interface and without root."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import add_conf, read_conf
from wgpy.cli.parser import add_command, count, pause, time_limit

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

# As ping(8): nobody answered.
_NO_ANSWER = 1
_INTERRUPTED = 130
# An IPv4 packet of 65,535 octets less the headers of IP and ICMP.
_MOST_OCTETS = 65507


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "ping",
        _ping,
        "send echo requests through the tunnel",
        examples="  wgpy ping office.conf 10.0.0.1\n"
        "  wgpy ping -c 1 -W 5 office.conf intranet.example && echo the tunnel works\n",
        mixes=True,
    )
    add_conf(parser)
    parser.add_argument("host", metavar="HOST", help="name, resolved in the tunnel, or address")
    parser.add_argument("-c", "--count", metavar="N", type=count(10**9), default=4, help="requests (4); 0 for ever")
    parser.add_argument("-i", "--interval", metavar="SECONDS", type=pause, default=1.0, help="between requests (1)")
    parser.add_argument("-s", "--size", metavar="OCTETS", type=count(_MOST_OCTETS), default=56, help="of payload (56)")
    parser.add_argument("-W", "--wait", metavar="SECONDS", type=time_limit, default=5.0, help="for each answer (5)")


def _ping(options: argparse.Namespace) -> int:
    import trio

    return trio.run(_ask, read_conf(options.conf), options)


async def _ask(config: Any, options: argparse.Namespace) -> int:
    import trio

    from wgpy.runtime.groups import unwrapped

    times: list[float | None] = []
    with unwrapped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_interrupt, nursery.cancel_scope)
            await _send_requests(config, options, times)
            nursery.cancel_scope.cancel()
    if not times:
        return _INTERRUPTED
    answered = [seconds for seconds in times if seconds is not None]
    print(f"{len(times)} sent, {len(answered)} received, {100 * (len(times) - len(answered)) // len(times)}% lost")
    if not answered:
        return _NO_ANSWER
    low, mean, high = min(answered), sum(answered) / len(answered), max(answered)
    print(f"min/avg/max = {low * 1e3:.3f}/{mean * 1e3:.3f}/{high * 1e3:.3f} ms")
    return 0


async def _end_at_interrupt(scope: Any) -> None:
    """Ctrl-C ends the requests, and what came of them is told."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _send_requests(config: Any, options: argparse.Namespace, times: list[float | None]) -> None:
    """Note for each request how long its answer took, or None."""
    import itertools

    import trio

    from wgpy.runtime.tunnel import open_tunnel

    async with open_tunnel(config) as tunnel:
        address = (await tunnel.net.getaddrinfo(options.host, 0))[0][4][0]
        shown = options.host if options.host == address else f"{options.host} ({address})"
        print(f"PING {shown}: {options.size} octets of payload", flush=True)
        for number in itertools.count(1):
            begun = trio.current_time()
            times.append(None)
            try:
                seconds = await tunnel.net.ping(address, size=options.size, timeout=options.wait)
            except OSError as problem:
                reason = "no answer" if isinstance(problem, TimeoutError) else _said(problem)
                print(f"from {address}: seq={number} {reason}", flush=True)
            else:
                times[-1] = seconds
                print(f"{options.size} octets from {address}: seq={number} time={seconds * 1e3:.3f} ms", flush=True)
            if number == options.count:
                break
            await trio.sleep_until(begun + options.interval)


def _said(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror) or problem.errno is None:
        return str(problem)
    return os.strerror(problem.errno)

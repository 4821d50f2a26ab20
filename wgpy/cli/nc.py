"""`wgpy nc`: standard input and output joined with a connection in the tunnel; for scripts and ssh's ProxyCommand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import add_conf, read_conf
from wgpy.cli.parser import add_command, port_number, time_limit

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

_CHUNK = 65536


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "nc",
        _nc,
        "join standard input and output with a TCP connection in the tunnel",
        examples="  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | wgpy nc office.conf intranet.example 80\n"
        "  ssh -o ProxyCommand='wgpy nc office.conf %h %p' build-machine\n"
        "  wgpy nc -w 5 -z office.conf intranet.example 443 && echo reachable\n",
        mixes=True,
    )
    add_conf(parser)
    parser.add_argument("host", metavar="HOST", help="name, resolved in the tunnel, or address")
    parser.add_argument("port", metavar="PORT", type=port_number)
    parser.add_argument("-w", "--wait", metavar="SECONDS", type=time_limit, help="give up connecting after so long")
    parser.add_argument("-z", "--zero", action="store_true", help="only connect: the exit code says whether it worked")


def _nc(options: argparse.Namespace) -> int:
    import trio

    return trio.run(_join, read_conf(options.conf), options)


async def _join(config: Any, options: argparse.Namespace) -> int:
    import math

    import trio

    from wgpy.adapters.net import DIAL_ERRORS, as_os_error
    from wgpy.adapters.relay import relay
    from wgpy.runtime.tunnel import open_tunnel

    async with open_tunnel(config) as tunnel:
        try:
            with trio.fail_after(options.wait or math.inf):
                stream = await tunnel.net.open_tcp_stream(options.host, options.port)
        except DIAL_ERRORS as problem:
            error = as_os_error(problem)
            raise OSError(error.errno, f"{options.host} port {options.port}: {error.strerror}") from None
        if options.zero:
            await stream.aclose()
            return 0
        broken = await relay(_StandardStreams(), stream)
        if broken is not None:
            raise as_os_error(broken)
    return 0


class _StandardStreams:
    """Standard input and output as a `Stream`.

    Read and written by threads: input may be a file, for which there is no waiting, and the terminal is shared with
    programs that do not want to find it non-blocking.
    """

    def __init__(self) -> None:
        self._reading: Any = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        import trio

        with trio.CancelScope() as self._reading:
            return await trio.to_thread.run_sync(os.read, 0, max_bytes or _CHUNK, abandon_on_cancel=True)
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        import trio

        await trio.to_thread.run_sync(_write_all, data, abandon_on_cancel=True)

    async def send_eof(self) -> None:
        # Who reads a pipe learns of its end by its being closed.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        if os.isatty(0) and self._reading is not None:
            # Somebody at a terminal would have to type Ctrl-D to a connection that has ended.
            self._reading.cancel()

    async def aclose(self) -> None:
        pass  # the process ends soon enough


def _write_all(data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]

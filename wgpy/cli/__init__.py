"""Commands: `wireguard-py` for wg and wg-quick, `wgpy` for people.

Every command is a module with `add_to(commands)`, which declares its arguments, and a function that runs it and returns
the exit code. What a command needs is imported when it runs, so that `wgpy pubkey` does not load an event loop.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from wgpy import __version__
from wgpy.cli.parser import Parser, said
from wgpy.errors import WgpyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["build_parser", "daemon_main", "main"]

_DAEMON_EXAMPLES = """\
  wireguard-py wg0                     make the interface wg0 and go to the background
  wireguard-py -f wg0                  stay in the foreground
  wireguard-py --workers 4 wg0         four processes share the peers: for a hub with many of them
  WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-py wg-quick up wg0

environment:
  LOG_LEVEL=verbose|error|silent       how much to say (error)
  WG_PROCESS_FOREGROUND=1              like -f
  WG_TUN_FD=N, WG_UAPI_FD=N            use an open TUN device, a listening control socket
  WG_KEYLOG_FILE=PATH                  append handshake secrets, for Wireshark
  WGPY_TUN_OFFLOAD=0, WGPY_TUN_GRO=0, WGPY_UDP_GSO=0, WGPY_UDP_GRO=0
                                       switch an offload off
  WGPY_ECN=0                           keep congestion marks and DSCP on their side of the tunnel
  WGPY_WORKERS=N                       like --workers
  WGPY_PROFILE=1                       say at the end where the time went
"""
_EXAMPLES = """\
  wgpy genkey > private.key && wgpy pubkey < private.key > public.key
  wgpy check wg0.conf
  sudo wgpy up wg0.conf && sudo wgpy show wg0 --watch
  wgpy exec wg0.conf -- curl http://intranet.example/
  wgpy proxy wg0.conf --socks5 1080
"""


def daemon_main(arguments: Sequence[str] | None = None) -> int:
    """`wireguard-py [-f|--foreground] IFACE`: the exit code."""
    from wgpy.cli import interfaces

    parser = Parser(
        prog="wireguard-py",
        description="Hold a WireGuard interface in userspace; configure it with wg or wg-quick.",
        examples=_DAEMON_EXAMPLES,
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("--workers", metavar="N", help="processes that share the peers (1)")
    parser.add_argument("--version", action="version", version=f"wireguard-py {__version__}")
    parser.add_argument("interface", metavar="IFACE", help="name of the interface, 1 to 15 characters")
    options = parser.parse_args(arguments)
    if options.workers is not None:
        os.environ["WGPY_WORKERS"] = options.workers
    return _guarded(parser.prog, lambda: interfaces.hold(options.interface, foreground=options.foreground))


def build_parser() -> Parser:
    """The command line of `wgpy`."""
    from wgpy.cli import capture, check, exec, fetch, interfaces, keylog, keys, nc, ping, proxy, show

    parser = Parser(prog="wgpy", description="WireGuard in Python, for people.", examples=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"wgpy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for module in (keys, interfaces, show, check, capture, keylog, exec, proxy, nc, ping, fetch):
        module.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """`wgpy COMMAND`: the exit code."""
    with _interruptible():
        parser = build_parser()
        options = parser.parse_args(arguments)
    return _guarded(parser.prog, lambda: options.run(options))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process as it ends any other: inside an import it would be a traceback, or get lost."""
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _guarded(program: str, command: Callable[[], int]) -> int:
    """Run a command; what goes wrong is one line on standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold any octets, which standard error shows in this way of itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:  # `wgpy show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (WgpyError, OSError) as problem:
        print(f"{program}: {said(problem)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        # Ctrl-C in the middle of several tasks: trio brings it with what else they were doing.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return 130
    return code

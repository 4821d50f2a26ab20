"""Commands: `wireguard-py` for wg-quick and friends, `wgpy` for people."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from wgpy import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["daemon_main", "main"]

_DAEMON_EXAMPLES = """\
examples:
  wireguard-py wg0                     make the interface wg0 and go to the background
  wireguard-py -f wg0                  stay in the foreground
  WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-py wg-quick up wg0

environment:
  LOG_LEVEL=verbose|error|silent       how much to say (error)
  WG_PROCESS_FOREGROUND=1              like -f
  WG_TUN_FD=N, WG_UAPI_FD=N            use an open TUN device, a listening control socket
  WG_KEYLOG_FILE=PATH                  append handshake secrets, for Wireshark
  WGPY_TUN_OFFLOAD=0, WGPY_TUN_GRO=0, WGPY_UDP_GSO=0, WGPY_UDP_GRO=0
                                       switch an offload off
"""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line and exit code 1, as wireguard-go has it."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(1, f"{self.prog}: {message}; see {self.prog} --help\n")


def daemon_main(arguments: Sequence[str] | None = None) -> int:
    """`wireguard-py [-f|--foreground] IFACE`."""
    parser = _Parser(
        prog="wireguard-py",
        description="Hold a WireGuard interface in userspace; configure it with wg or wg-quick.",
        epilog=_DAEMON_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("--version", action="version", version=f"wireguard-py {__version__}")
    parser.add_argument("interface", metavar="IFACE", help="name of the interface, 1 to 15 characters")
    options = parser.parse_args(arguments)
    # Threads of a linear algebra library that we have no use for: they cost memory and do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from wgpy.runtime.daemon import run_daemon

    foreground = options.foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    return run_daemon(options.interface, foreground=foreground, environment=os.environ)


def main(arguments: Sequence[str] | None = None) -> int:
    """`wgpy COMMAND`."""
    print("wgpy: not yet", file=sys.stderr)
    return 1

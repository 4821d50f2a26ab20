"""`wgpy exec`: any program inside namespaces whose only way out is the tunnel."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from wgpy.cli.conf import read_conf
from wgpy.cli.parser import add_command, said
from wgpy.errors import WgpyError

if TYPE_CHECKING:
    import argparse

    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

# As env(1), nohup(1) and timeout(1) have it: the wrapper failed, the program was never started.
_WE_FAILED = 125


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "exec",
        _exec,
        "run a program whose only way out is the tunnel; no root needed",
        wrong_usage=_WE_FAILED,
        examples="  wgpy exec office.conf -- curl https://intranet.example/\n"
        "  wgpy exec office.conf -- ssh build-machine\n"
        "  wgpy exec office.conf -- $SHELL            a shell with no other network\n"
        "\n"
        "The program runs in a user, network and mount namespace of its own. It sees the tunnel and a loopback of its\n"
        "own, and the name servers of the configuration; what AllowedIPs does not name is unreachable. Files and Unix\n"
        "sockets of the host stay within its reach. Its exit code is passed on, 128 and the number for a signal; 125\n"
        "says that the tunnel could not be made, 126 that the program cannot be run, 127 that it is not there. When\n"
        "wgpy is killed the program is killed too, for it has no network then; what it started itself is not.\n",
    )
    parser.add_argument("conf", metavar="CONF", help="a file NAME.conf, or the NAME of one in /etc/wireguard")
    parser.add_argument("program", metavar="-- PROGRAM", help="searched for in PATH")
    parser.add_argument("arguments", metavar="ARGS", nargs="...", help="handed to the program as they are")


def _exec(options: argparse.Namespace) -> int:
    # Threads of a linear algebra library that we have no use for do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from wgpy.adapters.namespace import run_confined

    try:
        return run_confined(read_conf(options.conf), [options.program, *options.arguments])
    except (WgpyError, OSError) as problem:
        print(f"wgpy exec: {said(problem)}", file=sys.stderr)
        return _WE_FAILED
